"""Pictures in the documents: what was never trained is said to be so where it is shown."""

from __future__ import annotations

import pytest
from support.places import ROOT

DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
UNTRAINED = ("calibrate_fp16.png", "lookahead.png")


@pytest.mark.parametrize("picture", UNTRAINED)
def test_a_picture_of_untrained_networks_says_so_in_its_caption(picture: str) -> None:
    shown = [text for document in DOCUMENTS if f"images/{picture})" in (text := document.read_text())]
    assert shown
    for text in shown:
        caption = text.partition(f"images/{picture})\n\n")[2].partition("\n\n")[0]
        assert caption.startswith("*")
        assert "never trained" in caption
