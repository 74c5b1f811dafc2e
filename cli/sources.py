"""What tells of the speaker: options that several verbs share."""

from __future__ import annotations

from typing import Annotated

import typer

SpeakerCoefficients = Annotated[
    str | None,
    typer.Option(metavar="FILE|landmarks|ONNX", help="The speaker's coefficients, for a generator that reads them."),
]
SpeakerEmotion = Annotated[str | None, typer.Option(metavar="FILE|ONNX", help="The speaker's emotion, likewise.")]


def sources(coefficients: str | None, emotion: str | None) -> dict[str, str]:
    """Need to what gives it, of those that were named."""
    given = {"coefficients": coefficients, "emotion": emotion}
    return {need: value for need, value in given.items() if value is not None}
