"""Files of this machine to a repository on the hub, in one commit: a reader finds the old ones or the new ones."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path

from pflx.engines.hub.address import HubAddress
from pflx.engines.hub.library import import_hub, told

_OURS = ("graphs/*.onnx", "engines/*.plan", "policy.*.json", "report.json")
"""What an earlier bundle in the same place may have left; nothing else there is touched."""


def upload(files: Mapping[str, Path | bytes], address: HubAddress, *, message: str, private: bool | None = None) -> str:
    """Publish files in a repository, which is made if it is not there.

    Args:
        files: path in the repository to the file, or its content.
        address: of the repository; its revision is the branch, which is made, too. Files go to the top.
        message: of the commit.
        private: whether a new repository is only for those who are let in; None leaves it to the organisation.

    Returns:
        The hash of the commit.

    Raises:
        HubError: nobody is signed in, the token may not do this, or the hub cannot be reached.
        BackendMissingError: huggingface_hub is not installed.
    """
    hub = import_hub()
    with told(address, writes=True):
        api = hub.HfApi(library_name="pflx")
        api.create_repo(address.repo, private=private, exist_ok=True)
        if address.revision is not None:
            api.create_branch(address.repo, branch=address.revision, exist_ok=True)
        there = api.list_repo_files(address.repo, revision=address.revision)
        gone = [file for file in there if file not in files and any(fnmatch(file, ours) for ours in _OURS)]
        operations = [
            *(hub.CommitOperationDelete(file) for file in gone),
            *(hub.CommitOperationAdd(file, _content(content)) for file, content in files.items()),
        ]
        info = api.create_commit(address.repo, operations, commit_message=message, revision=address.revision)
    return str(info.oid)


def _content(content: Path | bytes) -> str | bytes:
    return content if isinstance(content, bytes) else str(content)
