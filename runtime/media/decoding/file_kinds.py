"""What a file is that is no clip, told by its first bytes, and what to give instead."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pflx.engines.bundle.manifest import MANIFEST

_HEAD_BYTES = 512
_PICTURE_FIX = "Give a clip of the speaker; a picture is for --portrait."
_PICTURES = (
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("JPEG", re.compile(rb"\xff\xd8\xff")),
    ("WebP", re.compile(rb"RIFF.{4}WEBP", re.DOTALL)),
    ("BMP", re.compile(rb"BM.{4}\0{4}", re.DOTALL)),
    ("TIFF", re.compile(rb"II\*\0|MM\0\*")),
    ("HEIC or AVIF", re.compile(rb".{4}ftyp(?:hei[cxms]|mif1|msf1|avif)", re.DOTALL)),
    ("PSD", re.compile(rb"8BPS")),
)
_FILES = (
    (
        "a file of numbers (.npz)",
        "Give the clip that they were made of.",
        re.compile(rb"PK\x03\x04.{26}[^/]*?\.npy", re.S),
    ),
    ("a file of numbers (.npy)", "Give the clip that they were made of.", re.compile(rb"\x93NUMPY")),
    ("a ZIP archive", "Unpack it, and give the clip.", re.compile(rb"PK\x03\x04")),
    ("a compressed archive", "Unpack it, and give the clip.", re.compile(rb"\x1f\x8b|7z\xbc\xaf|Rar!|\xfd7zXZ|BZh")),
    ("a PDF document", "Give a clip of the speaker.", re.compile(rb"%PDF")),
)
_MOVIE_BOXES = {b"ftyp", b"mdat", b"moov", b"wide", b"free", b"skip", b"pnot", b"uuid"}
_CODEC_NAMES = {  # in MP4 and QuickTime, AVI, and Matroska, which says how long it is
    "video": re.compile(rb"hdlr.{8}vide.*?stsd.{12}([ -~]{4})|vids([ -~]{4})|\x86([\x81-\x9f]V_[\w/]+)", re.S),
    "audio": re.compile(rb"hdlr.{8}soun.*?stsd.{12}([ -~]{4})|(?!)()|\x86([\x81-\x9f]A_[\w/]+)", re.S),
}


def what_is_at(path: Path) -> str | None:
    """What stands at a path where no file does that can be read several times; None for a file.

    Returns:
        The rest of a sentence that begins with the path, and the fix.
    """
    if path.is_dir():
        if (path / MANIFEST).is_file():
            return "is a bundle. Give it as the bundle, and a clip of the speaker here."
        return "is a folder. Give a video file."
    if not path.exists():
        return "does not exist. Check the path."
    if path.is_fifo() or path.is_socket() or path.is_char_device():
        return "is a pipe or a device, and a clip is read more than once. Save it to a file, and give that."
    if not path.stat().st_size:
        return "is empty. Record or copy it again."
    return None


def what_it_is(path: Path) -> str | None:
    """What a file is that is no clip, or no whole one; None where nothing is known.

    Returns:
        The rest of a sentence that begins with the path, and the fix.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            for name, begins in _PICTURES:
                if begins.match(head):
                    return f"is a picture ({name}). {_PICTURE_FIX}"
            for name, fix, begins in _FILES:
                if begins.match(head):
                    return f"is {name}, no clip. {fix}"
            if head[4:8] in _MOVIE_BOXES and not _has_index(file):
                return (
                    "has no index (no moov box): it was cut off, or its recording was never closed. "
                    "Copy or record it again; a tool like untrunc may repair it."
                )
    except OSError:
        return None
    return "is text, no clip. Give a clip of the speaker." if _is_text(head) else None


def codec_name(path: Path, kind: str) -> str | None:
    """The file's own name for the codec of its first stream of a kind, `video` or `audio`, where it can be found."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = _CODEC_NAMES[kind].search(content)
            if found is None:
                return None
            in_mp4, in_avi, in_matroska = found.groups()
    except (OSError, ValueError):
        return None
    name: bytes = in_mp4 or in_avi or in_matroska[1 : 1 + (in_matroska[0] & 0x7F)]
    return name.decode("ascii")


def _has_index(file: BinaryIO) -> bool:
    return any(name in (b"moov", b"moof") for name in _boxes(file))


def _boxes(file: BinaryIO) -> Iterator[bytes]:
    """The names of the outermost boxes of an MP4 or QuickTime file, as far as it goes."""
    end = file.seek(0, 2)
    at = 0
    while at + 8 <= end:
        file.seek(at)
        header = file.read(16)
        size = int.from_bytes(header[:4], "big")
        size = int.from_bytes(header[8:16], "big") if size == 1 else size or end - at
        if at + size > end:
            return  # cut off within this one
        yield header[4:8]
        at += max(size, 8)


def _is_text(head: bytes) -> bool:
    """Whether a file begins like text; a letter cut in two at the end is none the worse."""
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return False
    return all(byte >= 32 or byte in b"\t\n\r\f\x1b" for byte in head)
