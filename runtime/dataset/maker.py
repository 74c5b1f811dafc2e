"""One row after the other on one listener: its file of coefficients, and its videos."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from pflx.engines import Bundle, PflxError
from pflx.engines.files.writer import OutputError, write_whole
from pflx.runtime.builtin import DEMO
from pflx.runtime.dataset.film import Film
from pflx.runtime.dataset.rows import Row, RowError
from pflx.runtime.dataset.seal import SEAL, DatasetSettings, Seal, row_seal, to_array
from pflx.runtime.dataset.track import ReactionTrack
from pflx.runtime.listener import Listener
from pflx.runtime.media.clip import CLIPS, SpeakerFile, open_speaker
from pflx.runtime.media.video_writer import numbered
from pflx.runtime.rendering.renderers import Portrait
from pflx.runtime.speaker.settings import SpeakerSettings

log = logging.getLogger(__name__)


INDEX = "dataset.json"
"""What a data set's folder has its rows and settings in."""


def row_file(folder: Path, row: Row) -> Path:
    """Where a data set has a row's coefficients."""
    return folder / f"{row.id}.npz"


def row_note(folder: Path, row: Row) -> Path:
    """Where it says why a row could not be made."""
    return folder / f"{row.id}.failed.json"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What all rows of a data set are made with; it can be sent to other processes.

    Attributes:
        folder: where results go.
        bundle: opened already.
        portrait: of rows that have none of their own.
        settings: how.
        seal: what all rows have in common.
    """

    folder: Path
    bundle: Bundle
    portrait: Path | None
    settings: DatasetSettings
    seal: Seal

    def place(self, row: Row) -> Path:
        """Of a row's file of coefficients."""
        return row_file(self.folder, row)

    def note(self, row: Row) -> Path:
        """Of what is said about a row that could not be made."""
        return row_note(self.folder, row)

    def videos(self, row: Row) -> list[Path]:
        """Of a row's videos, one for each sample; empty where none is rendered."""
        if not self.settings.video:
            return []
        video, samples = self.folder / f"{row.id}.mp4", self.settings.samples
        return numbered(video, samples)

    def row_seal(self, row: Row) -> Seal:
        """What a row is to be made with."""
        shown = row.portrait or self.portrait
        return row_seal(self.seal, row, row.reaction_seed(self.settings.seed), shown if self.settings.video else None)


class RowMaker:
    """Makes rows.

    Args:
        job: what they are made with.
        node: of a cluster, that notes of rows that cannot be made name; empty on one machine.

    Raises:
        BundleError, DeviceError, EngineError, PassportError, BackendMissingError, PortraitError, FeedError:
            see `Listener.open`.
    """

    def __init__(self, job: Job, node: str = "") -> None:
        settings = job.settings
        self._job, self._node = job, node
        self._listener = Listener.open(
            job.bundle,
            job.portrait or DEMO / "portrait.png",  # the latter is never shown: every row has its own
            device=settings.device,
            engines=settings.engines,
            renderer=settings.renderer,
            lookahead=settings.lookahead,
            speaker=SpeakerSettings(extractors=settings.extractors),
            options=settings.options,
            person=settings.person,
            chain=settings.chain,
            render=settings.video,
        )

    def make(self, row: Row) -> str | None:
        """Write what a row asks for; what cannot be done is noted beside it.

        Returns:
            Why it could not be done; None if it was.

        Raises:
            OutputError: nothing can be written.
        """
        note = self._job.note(row)
        note.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._make(row)
        except OutputError:
            raise
        except Exception as error:  # of whatever kind, it is of this row, and the others go on
            said = " ".join(str(error).split()) if isinstance(error, PflxError) else f"{type(error).__name__}: {error}"
            said += f" (On node {self._node}.)" if self._node else ""
            log.info("%s: %s", row.id, said, exc_info=not isinstance(error, PflxError))
            write_note(note, said)
            return said
        note.unlink(missing_ok=True)
        return None

    def _make(self, row: Row) -> None:
        job, listener, samples = self._job, self._listener, self._job.settings.samples
        clip = self._clip(row)
        files = {"coefficients": row.coefficients, "emotion": row.emotion}
        needs = listener.generator.needs
        extractors = {need: path for need, path in files.items() if path is not None and need in needs}
        speaker = SpeakerSettings(extractors=extractors)
        if listener.reads_pictures:
            speaker = replace(speaker, region=listener.find_region(clip))
        seed, track = row.reaction_seed(job.settings.seed), ReactionTrack(samples)
        own = _picture(row.portrait) if row.portrait and job.settings.video else None
        reaction = listener.react(
            clip, samples=samples, seed=seed, speaker=speaker, portrait=own, render=job.settings.video
        )
        frames = track.record(reaction)
        if job.settings.video:
            with Film(job.videos(row), clip, listener.manifest.renderer.size, samples, side_by_side=False) as film:
                film.shoot(frames, lambda *_: None)
        else:
            for _ in frames:
                pass
        if not track.n_frames:
            raise RowError(f"{row.speaker} gave no frame. Give a longer clip.")
        seal = to_array(job.row_seal(row))
        track.write(job.place(row), speaker.region, listener.manifest, **listener.made_with, **{SEAL: seal})

    def _clip(self, row: Row) -> SpeakerFile:
        if row.speaker.is_dir():
            frames = f"ffmpeg -framerate 25 -i '{row.speaker}/%d.png' '{row.speaker}.mp4'"
            raise RowError(
                f"{row.speaker} is a folder, no clip. If it holds numbered pictures, make one of them: {frames}"
            )
        clip = open_speaker(row.speaker)
        if self._job.settings.duration_s is not None:
            clip = clip.limited(self._job.settings.duration_s)
        if row.sound is not None:
            clip = clip.with_sound(open_speaker(row.sound))
        return clip.at_rate(self._listener.sample_rate_hz)

    def close(self) -> None:
        """Close the listener."""
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_note(place: Path, said: str) -> None:
    """Note why a row could not be made.

    Raises:
        OutputError: it cannot be written.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    write_whole(place, json.dumps({"error": said}, indent=2).encode("ascii") + b"\n")


def read_note(place: Path) -> str | None:
    """What was noted; None if nothing was."""
    try:
        found: Mapping[str, Any] = json.loads(place.read_text())
        return str(found["error"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _picture(path: Path) -> Portrait:
    """A portrait: a picture file, or the first frame of a clip."""
    return next(open_speaker(path).chunks(1)).video[0] if path.suffix.lower() in CLIPS else path
