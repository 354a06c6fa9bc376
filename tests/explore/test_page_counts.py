"""The record of the one long comparison of the page's script with captured networks is about the script as it is.

tests/browser/test_explorer_page.py compares 200 others each time. The record is made anew by
`python tests/explore/counted.py N SEED FILE` and `node tests/explore/compare.js FILE`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from analysis.explore.page import COUNT, block

HERE = Path(__file__).parent


def test_the_record_of_many_networks_is_about_this_script() -> None:
    record = json.loads((HERE / "counted_record.json").read_text(encoding="utf-8"))
    assert record["count_js_sha256"] == hashlib.sha256(COUNT.read_bytes()).hexdigest()
    assert record["n"] >= 10_000
    assert record["differences"] == 0


def test_the_block_has_its_scripts_and_loads_nothing() -> None:
    assert len(block().scripts) == block().whole.count("<script>")
    assert "http://" not in block().whole.replace("http://www.w3.org/", "")
    assert "https://" not in block().whole
