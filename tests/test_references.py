"""Every source that the code names stands in the bibliography."""

from __future__ import annotations

import re
from pathlib import Path

from analysis.claims.ledger import sources

ROOT = Path(__file__).parents[1]
KEY = re.compile(r"\b[a-z]{2,}(?:19|20)\d{2}[a-z]*\b")


def test_every_key_in_a_docstring_or_comment_is_in_the_bibliography() -> None:
    files = [*(ROOT / "resattn").rglob("*.py"), *(ROOT / "analysis").rglob("*.py")]
    named = {key for file in files for key in KEY.findall(file.read_text(encoding="utf-8"))}
    assert {"wang2017", "he2016"} <= named
    assert not named - sources()
