"""The online listener: a bundle, a portrait and a speaker in, listener frames out. No torch in here."""

from __future__ import annotations

from pflx.runtime.bundle_engines import EngineSettings
from pflx.runtime.frames.event import Event
from pflx.runtime.frames.face_state import FaceState
from pflx.runtime.frames.ledger import Ledger, Rung
from pflx.runtime.frames.listener_frame import ListenerFrame
from pflx.runtime.frames.pace import Pace
from pflx.runtime.frames.pixels import PixelFormat
from pflx.runtime.frames.turns import CueName, TurnName
from pflx.runtime.generators import GeneratorOptions
from pflx.runtime.listener import Listener
from pflx.runtime.live.clock import LiveClock, SystemClock, VirtualClock
from pflx.runtime.live.errors import ListenerFullError, SessionError
from pflx.runtime.live.push_source import PushSource
from pflx.runtime.live.queues import Policy, QueueGauge
from pflx.runtime.live.session import LiveSession
from pflx.runtime.live.settings import LiveSettings
from pflx.runtime.live.stats import SessionStats
from pflx.runtime.media.clip import SpeakerChunk, SpeakerFile, open_speaker
from pflx.runtime.media.errors import MediaError, MediaMemoryError
from pflx.runtime.media.sinks import CallbackSink, NullSink, Sink, StopWatching, VideoFileSink
from pflx.runtime.media.sources import FileSource, IterableSource, Source, Timed
from pflx.runtime.media.stream_sink import StreamSink
from pflx.runtime.media.webcam import WebcamSource
from pflx.runtime.media.window import WindowSink
from pflx.runtime.persons import Person, PersonError, read_person
from pflx.runtime.rendering.picture_file import PortraitError
from pflx.runtime.rendering.portrait import load_portrait
from pflx.runtime.speaker.extractor import Extractor, NeedError
from pflx.runtime.speaker.extractors import open_extractor
from pflx.runtime.speaker.faces import BlazeFace, Face, FaceDetector
from pflx.runtime.speaker.pfl import Region, fixed_region
from pflx.runtime.speaker.recorded import Recorded
from pflx.runtime.speaker.settings import SpeakerSettings
from pflx.runtime.stream.chain import ChainSettings, seeded_noise
from pflx.runtime.stream.inbox import Arrival
from pflx.runtime.stream.stream import Stream, StreamError

__all__ = [
    "Arrival",
    "BlazeFace",
    "CallbackSink",
    "ChainSettings",
    "CueName",
    "EngineSettings",
    "Event",
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
    "LiveSettings",
    "MediaError",
    "MediaMemoryError",
    "NeedError",
    "NullSink",
    "Pace",
    "Person",
    "PersonError",
    "PixelFormat",
    "Policy",
    "PortraitError",
    "PushSource",
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
    "SpeakerSettings",
    "StopWatching",
    "Stream",
    "StreamError",
    "StreamSink",
    "SystemClock",
    "Timed",
    "TurnName",
    "VideoFileSink",
    "VirtualClock",
    "WebcamSource",
    "WindowSink",
    "fixed_region",
    "load_portrait",
    "open_extractor",
    "open_speaker",
    "read_person",
    "seeded_noise",
]
