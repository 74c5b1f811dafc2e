"""What a file is, by its first bytes: the formats of pictures, and what stands in their place."""

from __future__ import annotations

import re

_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
_OTHERS = {
    b"%!": "PostScript, a program that is not run",
    b"\xc5\xd0\xd3\xc6": "PostScript, a program that is not run",
    b"%PDF": "a PDF",
    b"8BPS": "a Photoshop document",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\x01\0": "an icon",
    b"PK\x03\x04": "an archive",
    b"\x1f\x8b": "an archive",
    b"Rar!": "an archive",
    b"7z\xbc\xaf": "an archive",
    b"\x93NUMPY": "an array of NumPy",
}
_VIDEO = (b"\x1aE\xdf\xa3", b"FLV", b"OggS", b"\0\0\x01\xba", b"\0\0\x01\xb3")
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
"""Source: ISO/IEC 23008-12, annex B."""

_POINTER = re.compile(rb"version https://\S+/spec/v\d+\s+oid sha256:")
_PAGE = re.compile(rb"<(!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_DRAWING = re.compile(rb"<(\?xml|svg|!doctype\s+svg)\b", re.IGNORECASE)


def kind_of(head: bytes) -> str | None:
    """Pillow's name of the format that a file with these first bytes is in; None if it is none that pflx may read."""
    for signature, kind in _SIGNATURES.items():
        if head.startswith(signature):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if re.match(rb"P[1-6]\s", head):
        return "PPM"
    brands = _brands(head)
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    return "HEIF" if brands & _HEIC_BRANDS else None


def other_kind(head: bytes) -> tuple[str, str]:
    """What a file is that is no such picture, and what to do; the latter empty where saving it as another would do."""
    text = head.lstrip(b"\xef\xbb\xbf\r\n\t ")
    if not head:
        return "empty", "Copy or download it again."
    if _POINTER.match(text):
        return "a pointer of a large-file store in the place of the file", "Fetch the file: git lfs pull"
    if _PAGE.search(text[:256]):
        return "a web page", "Download the picture itself."
    if _DRAWING.match(text):
        return "a drawing in SVG or other XML", ""
    if _brands(head) or head.startswith(_VIDEO) or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return "a video", "Give one picture of it."
    for signature, what in _OTHERS.items():
        if head.startswith(signature):
            return what, ""
    return "of no format that is known here", ""


def _brands(head: bytes) -> set[bytes]:
    """What an ISO base media file says it is: its main brand, and those it is compatible with."""
    if head[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(head[:4], "big"), len(head))
    return {head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))}
