"""Persons: PerFRDiff's denoiser edited for one listener, by the published encoder and hypernetwork, once."""

from __future__ import annotations

from pflx.export.persons.hypernetwork import Hypernetwork, Mode, edited
from pflx.export.persons.listening import Listening, read_listening, watch_listening
from pflx.export.persons.making import PersonNetworks, edited_weights, make_person, style_of

__all__ = [
    "Hypernetwork",
    "Listening",
    "Mode",
    "PersonNetworks",
    "edited",
    "edited_weights",
    "make_person",
    "read_listening",
    "style_of",
    "watch_listening",
]
