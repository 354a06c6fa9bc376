"""What notebooks show where nothing was trained: kept tables, named as such; runs of one's own come first."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from made_up import row

from analysis.tables import schemas
from analysis.tables.files import INTERACTIVE, FrameError, write_table
from analysis.tables.runs import run_frame
from analysis.trained import kept_results
from analysis.trained.mask_maps import AttendingError


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    words: list[str] = []
    monkeypatch.setattr(kept_results, "display", lambda shown: words.append(shown.data))
    return words


def test_without_runs_the_kept_results_are_shown_and_named(tmp_path: Path, said: list[str]) -> None:
    runs = f"{INTERACTIVE}none"
    assert kept_results.folder(runs, "50_train", tmp_path) == str(tmp_path / "50_train")
    assert kept_results.runs(runs, "70_masks", tmp_path) == []
    assert len(said) == 2
    assert all(runs in words for words in said)
    assert str(tmp_path / "70_masks") in said[1]


def test_a_folder_that_was_named_and_has_no_runs_is_an_error(tmp_path: Path, said: list[str]) -> None:
    named = str(tmp_path / "mistyped")
    assert kept_results.folder(named, "50_train", tmp_path) == named
    with pytest.raises(FrameError, match="mistyped"):
        run_frame(named)
    with pytest.raises((FrameError, AttendingError), match="mistyped"):
        kept_results.runs(named, "70_masks", tmp_path)
    assert said == []


def test_without_runs_a_table_is_the_kept_one_and_nothing_is_computed(tmp_path: Path) -> None:
    frame = pd.DataFrame([row(schemas.MASKS)])
    write_table(frame, tmp_path / "70_masks" / "tables" / schemas.MASKS.file, {}, schema=schemas.MASKS)

    def compute(*_: object) -> pd.DataFrame:
        raise AssertionError("there are no runs")

    assert len(kept_results.table(schemas.MASKS, compute, [], 400, kept=tmp_path)) == 1
    none = kept_results.table(schemas.RESPONSES, compute, [], 400, kept=tmp_path)
    assert none.empty
    assert list(none) == schemas.RESPONSES.names


def test_with_runs_everything_is_computed(tmp_path: Path) -> None:
    asked = []

    def compute(*args: object) -> pd.DataFrame:
        asked.append(args)
        return pd.DataFrame([row(schemas.MASKS)])

    runs = [object()]
    assert len(kept_results.table(schemas.MASKS, compute, runs, 400, kept=tmp_path)) == 1  # type: ignore[arg-type]
    assert asked == [(runs, 400)]


def test_an_empty_table_draws_nothing_and_says_so(said: list[str]) -> None:
    assert list(kept_results.unless_empty(pd.DataFrame())) == []
    assert "nothing to show" in said[0]
    frame = pd.DataFrame({"a": [1]})
    assert [len(part) for part in kept_results.unless_empty(frame)] == [1]
    assert len(said) == 1
