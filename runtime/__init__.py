"""The online listener: a bundle, a portrait and a speaker in, listener frames out. No torch in here."""

from __future__ import annotations

from pflx.runtime.faces import BlazeFace, Face, FaceDetector, FaceState
from pflx.runtime.latency import Ledger
from pflx.runtime.listener import Listener
from pflx.runtime.media import MediaError, SpeakerChunk, SpeakerFile, open_speaker
from pflx.runtime.pfl import Region, fixed_region
from pflx.runtime.portrait import PortraitError, load_portrait
from pflx.runtime.stream import ListenerFrame, Stream, StreamError, seeded_noise

__all__ = [
    "BlazeFace",
    "Face",
    "FaceDetector",
    "FaceState",
    "Ledger",
    "Listener",
    "ListenerFrame",
    "MediaError",
    "PortraitError",
    "Region",
    "SpeakerChunk",
    "SpeakerFile",
    "Stream",
    "StreamError",
    "fixed_region",
    "load_portrait",
    "open_speaker",
    "seeded_noise",
]
