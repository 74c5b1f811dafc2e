"""Every reader of files, given what nobody should: a small part of tools/long_runs/fuzz.py, seeded."""

from __future__ import annotations

import json
import subprocess
import sys

from support.places import ROOT

READERS = {
    "numbers",
    "snapshots",
    "manifests",
    "policies",
    "checkpoints",
    "indices of feeds",
    "arrays of feeds",
    "pictures",
    "persons",
    "clips",
}


def test_hostile_files_are_refused_in_one_line_or_read() -> None:
    command = [sys.executable, "tools/long_runs/fuzz.py", "--inputs", "1500", "--seed", "7", "--look"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout)
    assert counts.keys() == READERS
    for name, ended in counts.items():
        assert ended.keys() <= {"read", "refused in one line"}, name
        assert ended["refused in one line"] > 0, name
    assert sum(sum(ended.values()) for ended in counts.values()) > 1400
