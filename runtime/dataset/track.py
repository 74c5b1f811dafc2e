"""The numbers of a reaction: what `pflx run --coefficients` and `pflx batch` write, and `pflx evaluate` reads."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from pflx.engines import Array, Manifest
from pflx.engines.files.writer import write_whole
from pflx.runtime.frames.listener_frame import ListenerFrame
from pflx.runtime.speaker.pfl import Region


class ReactionTrack:
    """Collects the numbers of a reaction, as frames pass by.

    Args:
        samples: reactions.
    """

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self._coefficients: list[Array] = []
        self._generated_pose: list[Array] = []
        self._emotion: list[Array] = []
        self._times: list[float] = []
        self._faces: list[int] = []

    def record(self, frames: Iterator[ListenerFrame]) -> Iterator[ListenerFrame]:
        """The same frames, remembered without their pictures."""
        for frame in frames:
            self._coefficients.append(frame.coefficients)
            self._generated_pose.append(frame.generated_pose)
            self._emotion += [] if frame.emotion is None else [frame.emotion]
            if frame.sample == 0:
                self._times.append(frame.time_s)
                self._faces.append(frame.face)
            yield frame

    @property
    def n_frames(self) -> int:
        """Frames so far, of each sample."""
        return len(self._times)

    def write(self, path: Path, region: Region | None, manifest: Manifest, **more: Any) -> None:
        """Write all tracks, `[sample, frame, …]`, whole or not at all.

        Args:
            path: of the `.npz`.
            region: of the speaker's face; None if the generator reads no pictures.
            manifest: of the bundle.
            more: other arrays, by name, as numpy saves them.

        Raises:
            OutputError: it cannot be written.
        """
        content = BytesIO()
        edges = () if region is None else region.edges
        emotion: dict[str, Any] = {"emotion": self._by_sample(self._emotion)} if self._emotion else {}
        np.savez_compressed(
            content,
            coefficients=self._by_sample(self._coefficients),
            generated_pose=self._by_sample(self._generated_pose),
            time_s=np.array(self._times),
            face=np.array(self._faces),
            region=np.array(edges, np.int64),
            fps=np.array(manifest.fps),
            hop=np.array(manifest.generator.hop),
            untrained=np.array(-1 if manifest.untrained is None else manifest.untrained),
            **emotion,
            **more,
        )
        write_whole(path, content.getbuffer())

    def _by_sample(self, rows: list[Array]) -> Array:
        return np.stack(rows).reshape(-1, self._samples, rows[0].size).swapaxes(0, 1)
