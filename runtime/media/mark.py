"""What tells machines that pictures are no camera's: IPTC's digital source type, in the ways that files have for it."""

from __future__ import annotations

import struct
from pathlib import Path

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""A photograph, edited with generative AI: a portrait that is animated. IPTC NewsCodes, Digital Source Type."""

COMMENT = f"AI-generated: a portrait animated by pflx. Digital source type: {SOURCE_TYPE}"
"""For people and for programs that read no XMP."""

_XMP_BOX = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
"""UUID of the box that holds XMP in an MP4. Source: Adobe, XMP Specification Part 3, section 1.2.7."""

_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">
   <Iptc4xmpExt:DigitalSourceType>{source_type}</Iptc4xmpExt:DigitalSourceType>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""


def xmp_packet() -> bytes:
    """The digital source type as XMP: `xmp=` of Pillow's `save`, "XML:com.adobe.xmp" of a PNG."""
    return _PACKET.format(source_type=SOURCE_TYPE).encode()


def append_xmp(path: Path) -> None:
    """Add the digital source type to an MP4 that is complete.

    Args:
        path: of the file.
    """
    content = _XMP_BOX + xmp_packet()
    with path.open("ab") as file:
        file.write(struct.pack(">I4s", 8 + len(content), b"uuid") + content)
