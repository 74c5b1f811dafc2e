"""Files that others than the code read: who contributes, who cites, who reports, which tools."""

from __future__ import annotations

import json
import re
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from support.places import ROOT

yaml: Any = import_module("yaml")


@pytest.mark.parametrize("name", ["CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_links_of_the_project_files_lead_somewhere(name: str) -> None:
    targets = re.findall(r"\]\((?!https:)([^)#]+)\)", (ROOT / name).read_text())
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_paths_that_contributing_names_are_there() -> None:
    named = re.findall(r"`([a-z]+/[\w/.]+)`", (ROOT / "CONTRIBUTING.md").read_text())
    places = [Path(path.replace("NAME.py", "__init__.py")) for path in named]
    assert len(places) > 5
    assert [place for place in places if not (ROOT / place).exists()] == []


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks/results").glob("*.json")), ids=lambda path: path.stem)
def test_every_result_says_what_made_it_when_where_and_of_which_code(path: Path) -> None:
    found = json.loads(path.read_text())
    host = found.get("machine") or found.get("environment") or found["hardware"]
    versions = found.get("versions") or host.get("versions") or host["packages"]
    commands = [found["command"]] if "command" in found else [verb["command"] for verb in found["verbs"].values()]
    assert commands
    assert all(re.match(r"((\w+=\S+ )*(python|pflx) \S|by hand)", command) for command in commands)
    assert datetime.fromisoformat(found["created"]).tzinfo is not None
    commits = [found["commit"]] if "commit" in found else list(found.get("commits", {}).values()) or [host["commit"]]
    assert commits
    assert all(re.fullmatch(r"[0-9a-f]{7,40}(-dirty)?", commit) for commit in commits)
    assert host.get("cpu") or host.get("gpu")
    assert all(re.match(r"\d+\.\d+", str(version)) for version in versions.values() if version is not None)
    assert any(versions.values())


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks/results").glob("*.json")), ids=lambda path: path.stem)
def test_no_result_names_a_path_of_the_machine_that_it_was_measured_on(path: Path) -> None:
    words = re.findall(r"[^\s\"',;=()\[\]]+", path.read_text())
    assert [word for word in words if re.match(r"(/|~/|[A-Z]:\\)\w", word)] == []


def test_the_changelog_keeps_its_form() -> None:
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    releases = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
    assert releases[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", release) for release in releases[1:])
    kinds = {line.removeprefix("### ") for line in lines if line.startswith("### ")}
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_citation_names_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (paper,) = citation["references"]
    assert citation["authors"] == [{"name": "pflx maintainers"}]
    assert paper["title"] == "Smooth Online Multiple Appropriate Facial Reaction Generation"
    assert (paper["conference"]["name"], paper["year"]) == ("ACM Multimedia 2025", 2025)


def test_each_hook_runs_what_make_lint_runs() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    makefile = (ROOT / "Makefile").read_text().replace("$(BIN)", ".venv/bin")
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        command = hook["entry"].replace(" --force-exclude", "")
        assert hook["id"] == "rooms" or command in makefile, hook["id"]


@pytest.mark.parametrize("template", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.md")), ids=lambda path: path.stem)
def test_an_issue_template_says_what_it_is_for(template: Path) -> None:
    _, head, body = template.read_text().split("---\n", 2)
    assert yaml.safe_load(head).keys() >= {"name", "about"}
    assert body.strip()
