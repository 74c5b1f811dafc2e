from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.serve.chromium import chromium, find_chromium
from support.serve.recordings import fake_devices
from support.serve.window import Server, Window


@pytest.fixture(scope="session")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Window]:
    """One browser and one server for all tests in a page."""
    binary = find_chromium()
    if binary is None:
        pytest.skip("no Chromium is installed (or name one by PFLX_CHROMIUM)")
    folder = tmp_path_factory.mktemp("browser")
    flags = ["--allow-loopback-in-peer-connection", *fake_devices(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aioice.ice.get_host_addresses", lambda **_: ["127.0.0.1"])  # see `loopback_only`
        with Server() as server, chromium(binary, folder / "profile", flags) as browser:
            yield Window(server, browser)
