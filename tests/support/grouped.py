"""Settings that a test names one by one, in the groups that the package takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pflx.runtime import ChainSettings, EngineSettings, LiveSettings, SpeakerSettings

GROUPS: Mapping[str, type[Any]] = {
    "speaker": SpeakerSettings,
    "settings": LiveSettings,
    "engines": EngineSettings,
    "chain": ChainSettings,
}


def grouped(given: Mapping[str, Any], *groups: str) -> dict[str, Any]:
    """The same with the fields of `speaker`, `settings` or `engines` in such a group.

    Args:
        given: by name.
        groups: which to make; one that none of its fields is given for is left out.
    """
    left = dict(given)
    made: dict[str, Any] = {}
    for group in groups:
        names = {field.name for field in fields(GROUPS[group])} & left.keys()
        if names:
            made[group] = GROUPS[group](**{name: left.pop(name) for name in names})
    return left | made
