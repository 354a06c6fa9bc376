"""What the ledger says that was printed, as frames."""

from __future__ import annotations

import pandas as pd
import pytest

from analysis.claims.printed import finding_counts, published_frame
from analysis.tables.files import FrameError


def test_published_rows_of_tables_2_and_7() -> None:
    published = published_frame("wang2017", ["Table 2", "Table 7"]).set_index("id")
    assert published.loc["t7.attention56.flops", "verdict"] == "confirmed"
    assert published.loc["t2.attention56.flops", "verdict"] == "off"
    assert published.loc["t7.attention92.params", ["verdict", "place"]].to_list() == ["off", "Table 7; Table 2"]
    assert published.loc["t7.attention56.params", "verdict"] == "other definition"
    assert set(published["quantity"]) == {"params", "cost", "depth"}


def test_published_rows_that_are_not_there() -> None:
    with pytest.raises(FrameError, match="no counted row from wang2017 in Table 99"):
        published_frame("wang2017", ["Table 99"])


def test_counts_of_verdicts_lose_no_claim() -> None:
    claims = pd.DataFrame({"source": ["a"] * 3 + ["b"] * 2 + ["c"], "verdict": ["confirmed", "off"] * 3})
    counts = finding_counts(claims, least=3)
    assert list(counts["source"].unique()) == ["a", "2 others"]
    assert counts["n"].sum() == len(claims)
