"""The online listener: a bundle, a portrait and a speaker in, listener frames out. No torch in here."""

from __future__ import annotations

from pflx.runtime.chain import seeded_noise
from pflx.runtime.clock import LiveClock, SystemClock, VirtualClock
from pflx.runtime.extractors import Extractor, NeedError, Recorded, open_extractor
from pflx.runtime.faces import BlazeFace, Face, FaceDetector
from pflx.runtime.frames.face_state import FaceState
from pflx.runtime.frames.ledger import Ledger, Rung
from pflx.runtime.frames.listener_frame import ListenerFrame
from pflx.runtime.frames.pace import Pace
from pflx.runtime.generators import GeneratorOptions
from pflx.runtime.inbox import Arrival
from pflx.runtime.listener import Listener
from pflx.runtime.live import LiveSession
from pflx.runtime.media import MediaError, SpeakerChunk, SpeakerFile, open_speaker
from pflx.runtime.pfl import Region, fixed_region
from pflx.runtime.portrait import PortraitError, load_portrait
from pflx.runtime.queues import Policy, QueueGauge
from pflx.runtime.session import ListenerFullError, SessionError, SessionStats
from pflx.runtime.sinks import CallbackSink, NullSink, Sink, StopWatching, VideoFileSink, WindowSink
from pflx.runtime.sources import FileSource, IterableSource, Source, Timed
from pflx.runtime.stream import Stream, StreamError
from pflx.runtime.webcam import WebcamSource

__all__ = [
    "Arrival",
    "BlazeFace",
    "CallbackSink",
    "Extractor",
    "Face",
    "FaceDetector",
    "FaceState",
    "FileSource",
    "GeneratorOptions",
    "IterableSource",
    "Ledger",
    "Listener",
    "ListenerFrame",
    "ListenerFullError",
    "LiveClock",
    "LiveSession",
    "MediaError",
    "NeedError",
    "NullSink",
    "Pace",
    "Policy",
    "PortraitError",
    "QueueGauge",
    "Recorded",
    "Region",
    "Rung",
    "SessionError",
    "SessionStats",
    "Sink",
    "Source",
    "SpeakerChunk",
    "SpeakerFile",
    "StopWatching",
    "Stream",
    "StreamError",
    "SystemClock",
    "Timed",
    "VideoFileSink",
    "VirtualClock",
    "WebcamSource",
    "WindowSink",
    "fixed_region",
    "load_portrait",
    "open_extractor",
    "open_speaker",
    "seeded_noise",
]
