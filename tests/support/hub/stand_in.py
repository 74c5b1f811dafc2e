"""A hub of models on this machine: what `huggingface_hub` asks of one, over HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

from support.commands import Outcome
from support.places import TESTS

Files = dict[str, bytes]


@dataclass
class Hub:
    """What is on it.

    Attributes:
        repos: repository to branch to its files.
        refuses: repository to the status and code that it answers everything with.
        asked: method and path of all requests.
        address: of the server.
    """

    repos: dict[str, dict[str, Files]] = field(default_factory=dict)
    refuses: dict[str, tuple[int, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    address: str = ""

    def fetched(self) -> set[str]:
        """The files that were read."""
        return {re.sub(r".*/resolve/[^/]+/", "", each) for each in self.asked if "/resolve/" in each}

    def find(self, repo: str, revision: str) -> Files | None:
        branches = self.repos[repo]
        return branches.get(revision) or next((f for f in branches.values() if commit(f) == revision), None)


def commit(files: Mapping[str, bytes]) -> str:
    """The hash that stands for a state of a repository."""
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


def bundle_files(folder: Path, below: str = "") -> Files:
    return {
        below + file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()
    }


@contextmanager
def stand_in() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        return

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        found = re.fullmatch(r"/(?:api/models/)?([\w.-]+/[\w.-]+)/?(.*)", path)
        assert found is not None, path
        repo, rest = found.groups()
        if repo in self.hub.refuses:
            return self.refuse(*self.hub.refuses[repo])
        if repo not in self.hub.repos:
            return self.refuse(404, "RepoNotFound")
        place = re.match(r"(revision|tree|resolve)/(refs/pr/\d+|[^/]+)/?(.*)", rest)
        assert place is not None or rest == "", rest
        what, revision, file = place.groups() if place else ("revision", "main", "")
        files = self.hub.find(repo, revision)
        if files is None:
            return self.refuse(404, "RevisionNotFound")
        if what == "resolve":
            return self.refuse(404, "EntryNotFound") if file not in files else self.send_file(files, file)
        if what == "tree":
            return self.answer([{"type": "file", "path": p, "size": len(c), "oid": sha(c)} for p, c in files.items()])
        siblings = [{"rfilename": name} for name in files]
        return self.answer({"id": repo, "modelId": repo, "sha": commit(files), "siblings": siblings, "tags": []})

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != "Bearer hf_mayWrite":
            return self.refuse(401, "")
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            self.hub.repos.setdefault(repo, {"main": {".gitattributes": b"*.onnx filter=lfs"}})
            return self.answer({"url": f"{self.hub.address}/{repo}", "id": repo, "private": asked.get("private")})
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(branch|preupload|commit)/(.+)", path)
        assert found is not None, path
        repo, what, branch = found.groups()
        branches = self.hub.repos[repo]
        if what == "branch":
            branches.setdefault(branch, dict(branches["main"]))
            return self.answer({})
        if what == "preupload":
            asked = json.loads(body)["files"]
            return self.answer(
                {"files": [{"path": e["path"], "uploadMode": "regular", "shouldIgnore": False} for e in asked]}
            )
        self.take(branches[branch], [json.loads(line) for line in body.splitlines()])
        made = commit(branches[branch])
        address = f"{self.hub.address}/{repo}/commit/{made}"
        return self.answer({"commitOid": made, "commitUrl": address, "hookOutput": ""})

    def take(self, files: Files, lines: Sequence[dict[str, Any]]) -> None:
        for line in lines:
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del files[line["value"]["path"]]

    def send_file(self, files: Files, name: str) -> None:
        self.send_response(200)
        for key, value in {
            "X-Repo-Commit": commit(files),
            "ETag": f'"{sha(files[name])}"',
            "Content-Length": str(len(files[name])),
        }.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(files[name])

    def answer(self, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def sha(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


_COMMANDS = """
import json, sys
from dataclasses import asdict
from support.commands import pflx
for words in json.load(sys.stdin):
    print("outcome", json.dumps(asdict(pflx(*words))), flush=True)
"""


def python_with(hub: Hub | None, home: Path, code: str, given: str = "", **environment: str) -> str:
    """Run Python in a process that knows this hub only, or none, and keeps its cache in a folder; what it printed."""
    address = "http://127.0.0.1:9" if hub is None else hub.address
    own = {"HF_HOME": str(home), "HF_ENDPOINT": address, "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(TESTS)}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    child = subprocess.run(
        [sys.executable, "-c", code],
        input=given,
        env={**kept, **own, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert child.returncode == 0, child.stderr
    return child.stdout


def pflx_with(hub: Hub | None, home: Path, *commands: Sequence[str | Path], **environment: str) -> list[Outcome]:
    """Run commands likewise, one after the other in one process."""
    words = json.dumps([[str(word) for word in command] for command in commands])
    printed = python_with(hub, home, _COMMANDS, words, **environment).splitlines()
    return [Outcome(**json.loads(line.removeprefix("outcome "))) for line in printed if line.startswith("outcome ")]
