"""The Dockerfiles and the compose file, as far as they can be held without a builder: docs/containers.md."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any
from zipfile import ZipFile

import pytest
import typer
import yaml  # type: ignore[import-untyped]
from build_dist import copy_source
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from support.places import ROOT

from pflx.cli import app
from pflx.runtime.serve.app import make_server
from pflx.runtime.serve.guard import Guard, SignIn
from pflx.runtime.serve.settings import ServeSettings

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
KINDS = ("cpu", "gpu")
Steps = list[tuple[str, str]]


def steps(kind: str) -> list[Steps]:
    """Instructions of each stage of an image, with their arguments."""
    text = re.sub(r"^#.*\n", "", (ROOT / f"docker/{kind}.Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", "").splitlines()
    stages: list[Steps] = []
    for name, _, given in (line.partition(" ") for line in lines if line):
        if name == "FROM":
            stages.append([])
        stages[-1].append((name, given.strip()))
    return stages


def context(folder: Path) -> Path:
    """Copy what .dockerignore lets in."""
    wanted = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name in wanted:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def files_of_wheel(source: Path, folder: Path) -> dict[str, int]:
    """Build a wheel; the checksum of each file in it."""
    command: list[str | Path] = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.iterdir()
    with ZipFile(wheel) as archive:
        return {entry.filename: entry.CRC for entry in archive.infolist()}


def test_an_image_is_built_from_files_that_make_the_same_wheel(tmp_path: Path) -> None:
    whole = files_of_wheel(copy_source(tmp_path / "source"), tmp_path / "whole")
    assert files_of_wheel(context(tmp_path / "context"), tmp_path / "lean") == whole


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_installs_its_own_extras_and_nothing_to_export(kind: str) -> None:
    text = (ROOT / f"docker/{kind}.Dockerfile").read_text()
    (extras,) = re.findall(r"ARG EXTRAS=([a-z,]+)", text)
    assert 'pip install --no-cache-dir ".[${EXTRAS}]"' in text
    assert set(extras.split(",")) == {kind, "serve"}
    assert set(extras.split(",")) <= EXTRAS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_slim_runs_as_nobody_in_particular_and_tells_its_health(kind: str) -> None:
    *_, last = steps(kind)
    names = [name for name, _ in last]
    told = dict(last)
    assert re.fullmatch(r"python:3\.\d+-slim", told["FROM"])
    assert int(told["USER"]) > 0
    assert f"useradd --create-home --uid {told['USER']}" in told["RUN"]
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert told["ENTRYPOINT"] == '["pflx"]'
    assert told["HEALTHCHECK"].endswith('CMD ["python", "/opt/health.py"]')
    assert ("COPY", "docker/health.py /opt/health.py") in last


def test_the_two_images_differ_in_the_engine_and_in_what_a_gpu_needs() -> None:
    cpu, gpu = (
        {instruction for stage in steps(kind) for instruction in stage if instruction[0] != "ENV"} for kind in KINDS
    )
    differing = {given for _, given in cpu ^ gpu}
    assert {re.sub("=[cg]pu,", "=…,", given) for given in differing} == {"EXTRAS=…,serve"}


def health(url: str) -> int:
    asked = {**os.environ, "PFLX_HEALTH_URL": url}
    return subprocess.run([sys.executable, ROOT / "docker/health.py"], env=asked, capture_output=True).returncode


@contextmanager
def serving(settings: ServeSettings, status: int) -> Iterator[str]:
    """The address of a server whose page answers with that status, behind the guard of `pflx serve`."""

    async def page(_: Request) -> Response:
        return Response(status_code=status)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        routes = [Route(path, page) for path in ("/", "/sign-in")]
        server = make_server(Guard(Starlette(routes=routes), SignIn(settings.token), settings, port))
        thread = Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}/"
        finally:
            server.should_exit = True
            thread.join()


OTHER_NAME = ServeSettings(host="0.0.0.0", token="a token of some length", origins=("https://me.example",))


@pytest.mark.parametrize(
    ("settings", "status", "code"), [(ServeSettings(), 200, 0), (OTHER_NAME, 200, 0), (ServeSettings(), 500, 1)]
)
def test_a_server_that_answers_is_healthy_under_whatever_name(settings: ServeSettings, status: int, code: int) -> None:
    with serving(settings, status) as url:
        assert health(url) == code


def test_where_nothing_answers_nothing_is_healthy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    assert health(f"http://127.0.0.1:{port}/") == 1


def _check_options(words: list[str]) -> None:
    """Make sure that the options of a command line are the verb's."""
    verb, *options = words
    command: Any = typer.main.get_command(app)
    known = {name for parameter in command.commands[verb].params for name in parameter.opts}
    assert {option.partition("=")[0] for option in options if option.startswith("-")} <= known


def test_the_compose_file_gives_options_that_pflx_serve_has() -> None:
    _check_options(COMPOSE["pflx"]["command"])
    assert "PFLX_TOKEN" in COMPOSE["pflx"]["environment"]
    assert (ROOT / COMPOSE["pflx"]["build"]["dockerfile"]).is_file()


def test_the_turn_server_starts_when_asked_and_shares_a_secret_that_is_on_no_command_line() -> None:
    turn, served = COMPOSE["turn"], COMPOSE["pflx"]
    assert turn["profiles"] == ["turn"]
    assert "--use-auth-secret" in turn["command"]
    assert turn["command"][turn["command"].index("-c") + 1] == "/data/turnserver.conf"
    assert turn["volumes"] == served["volumes"]
    assert not re.search("secret=|user=|:[?]", " ".join(turn["command"]))  # `:?` would stop those who want no relay
    assert {"PFLX_TURN", "PFLX_TURN_SECRET_FILE"} <= {*served["environment"]}


def test_the_compose_file_of_a_site_gives_options_that_pflx_serve_has() -> None:
    services = yaml.safe_load((ROOT / "docker/site.compose.yaml").read_text())["services"]
    assert set(services) == {"site", "worker", "turn"}
    _check_options(services["site"]["command"][-1].partition("exec pflx ")[2].split())
    assert services["turn"] == COMPOSE["turn"] | {"profiles": ["site"], "volumes": ["./data:/data:ro"]}
    for name in ("site", "worker"):
        extras = services[name]["build"]["args"]["EXTRAS"].split(",")
        assert set(extras) <= EXTRAS.keys()
        assert "site" in extras
        assert "RAY_AUTH_TOKEN=${RAY_AUTH_TOKEN:?}" in services[name]["environment"]


def test_the_values_for_kuberay_name_an_image_and_a_host_network_for_every_group() -> None:
    values = yaml.safe_load((ROOT / "docker/kuberay-values.yaml").read_text())
    assert values["image"] == {"repository": "pflx", "tag": "site", "pullPolicy": "IfNotPresent"}
    groups = [values["head"], values["worker"]]
    assert all(group["hostNetwork"] is True for group in groups)
    assert values["worker"]["minReplicas"] <= values["worker"]["replicas"] <= values["worker"]["maxReplicas"]
    assert values["worker"]["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_nobody_is_given_more_rights_than_needed() -> None:
    for service in COMPOSE.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
