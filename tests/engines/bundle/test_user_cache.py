"""The user's cache: what its files belong to, what it costs when it cannot be had, and timings kept in it."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from support.gpu.user_cache import put_user_cache

from pflx.engines.building.compiler import _timings
from pflx.engines.bundle.driver import Gpu
from pflx.engines.bundle.user_cache import CacheFile, cache_folder, timing_cache

GPU = Gpu("NVIDIA GeForce RTX 4090", "sm_89", "13.0")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return put_user_cache(tmp_path / "cache", monkeypatch)


def test_a_cache_belongs_to_all_that_it_was_made_for(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {CacheFile("kernels", *key).path for key in (("a", "b"), ("ab",), ("a", "c"), ("a", "b", ""))}
    assert len(files) == 4
    assert timing_cache("10.1", GPU).path != timing_cache("10.1", msgspec.structs.replace(GPU, name="L4")).path
    assert {file.parent for file in files} == {cache}
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("LOCALAPPDATA", "")
    assert cache_folder().is_relative_to(Path.home())


def test_a_cache_folder_that_cannot_be_made_costs_only_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "file"))
    file = CacheFile("kernels", "a")
    with caplog.at_level(logging.WARNING):
        assert file.read() == b""
        file.write(b"something")
    assert "Nothing is kept for the next start" in caplog.text


class TimedConfig:
    """A builder's configuration that takes one timing cache."""

    def __init__(self, refused: bytes = b"?") -> None:
        self.cache: bytes | None = None
        self.refused = refused

    def create_timing_cache(self, stored: bytes) -> bytes | None:
        return None if stored == self.refused else stored

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.cache = cache
        return True


def test_a_build_of_full_tensorrt_goes_on_from_the_timings_of_the_last(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trt, config = SimpleNamespace(__version__="10.16"), TimedConfig()
    file = _timings(trt, config, GPU)
    assert config.cache == b""
    file.write(b"measured")
    assert [path.name.partition("-")[0] for path in cache.iterdir()] == ["timings"]
    _timings(trt, config, GPU)
    assert config.cache == b"measured"
    with caplog.at_level(logging.WARNING):
        _timings(trt, config := TimedConfig(refused=b"measured"), GPU)
    assert config.cache == b""
    assert "is ignored, its work is done again: TensorRT does not take it" in caplog.text
