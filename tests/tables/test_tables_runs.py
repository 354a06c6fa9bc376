"""Training runs as tables. The numbers are made up: only their arithmetic is tested."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_up import run, runs

from analysis.statistics.conclusions import comparison_frame
from analysis.tables import schemas
from analysis.tables.files import FrameError, TableError, check_frame
from analysis.tables.provenance import ROOT
from analysis.tables.runs import budget, epoch_frame, run_frame
from analysis.trained import comparisons

ACCELERATOR = ROOT / "results" / "protocol" / "accelerator"


def write_run(row: dict[str, Any], folder: Path, *, without: tuple[str, ...] = ()) -> None:
    """The table of a run, as another version of the suite may have left it: by hand, without a sidecar."""
    (folder / "tables").mkdir(parents=True)
    columns = [name for name in schemas.RUN.names if name not in without]
    pd.DataFrame([row], columns=columns).to_csv(folder / "tables" / "run.csv", index=False)


def test_the_budget_says_what_the_runs_were_given() -> None:
    words = budget(runs())
    assert words == "cluttered-digits, 4 epochs, 2,000 training images; 3 seeds of each network"


def test_runs_are_read_from_their_tables(tmp_path: Path) -> None:
    for seed in (1, 0):
        write_run(run("ours", seed, 10.0 + seed), tmp_path / f"ours-s{seed}")
    found = run_frame(tmp_path)
    assert list(found["seed"]) == [0, 1]
    assert list(found["test_error_pct"]) == [10.0, 11.0]
    assert list(found["s_per_epoch"]) == [20.0, 20.0]
    assert list(found["training_macs"]) == [3 * 20 * 1984 * 4] * 2  # 62 batches of 32


def test_a_run_of_an_earlier_version_has_no_noise_and_no_memory(tmp_path: Path) -> None:
    write_run(run("ours", 0, 10.0), tmp_path / "ours-s0", without=("label_noise", "peak_memory_bytes"))
    found = run_frame(tmp_path)
    assert found["label_noise"].tolist() == [0.0]
    assert "peak_memory_bytes" not in set(comparison_frame(found)["quantity"])


def test_the_recipe_of_a_run_is_that_of_its_record(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(run("ours", seed, 10.0), tmp_path / f"ours-s{seed}")
    record = tmp_path / "ours-s0" / "run" / "run.json"
    record.parent.mkdir()
    record.write_text('{"config": {"lr": 0.05, "milestones": [0.6, 0.85]}}')
    found = run_frame(tmp_path)
    assert found.loc[0, ["lr", "milestones"]].tolist() == [0.05, "[0.6, 0.85]"]
    assert found.loc[1, ["lr", "milestones", "augment"]].isna().all()
    record.write_text("{}")
    with pytest.raises(TableError, match="no record of a run"):
        run_frame(tmp_path)


def test_a_folder_without_runs(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match=r"no run in .*run 50_train"):
        run_frame(tmp_path)


def test_a_run_table_that_lacks_a_column(tmp_path: Path) -> None:
    write_run(run("ours", 0, 10.0), tmp_path / "ours-s0", without=("dataset",))
    with pytest.raises(TableError, match="also dataset"):
        run_frame(tmp_path)


# ---- kept runs


def test_kept_runs_are_read_from_their_records() -> None:
    found, epochs = run_frame(ACCELERATOR), epoch_frame(ACCELERATOR)
    check_frame(found, schemas.RUNS)
    check_frame(epochs, schemas.EPOCHS)
    seeds = found.groupby("network")["seed"].agg(list)
    assert list(seeds.index) == ["cifar-attention56", "cifar-resnet74", "cifar-resnet83"]
    assert all(own == list(range(8)) for own in seeds)
    assert set(found["schedule"]) == {"linear"}
    for row in found.itertuples():
        assert epochs[(epochs["network"] == row.network) & (epochs["seed"] == row.seed)]["test_error_pct"].iloc[-1] == row.test_error_pct  # fmt: skip


def test_runs_that_shared_a_device_have_their_share_of_its_time() -> None:
    """The summary of that call measured its throughput and its whole time apart from the records of its runs."""
    found, summary = run_frame(ACCELERATOR), json.loads((ACCELERATOR / "summary.json").read_text())
    assert found["images_per_s"].median() == pytest.approx(summary["best_images_per_s"], rel=0.05)
    assert 0.8 * summary["elapsed_s"] < found["elapsed_s"].sum() < summary["elapsed_s"]
    assert "elapsed_s" not in comparisons.differing_sizes(found)


def test_a_damaged_kept_run_is_named(tmp_path: Path) -> None:
    one = next(path for path in ACCELERATOR.iterdir() if path.is_dir())
    shutil.copytree(one, tmp_path / one.name)
    assert len(run_frame(tmp_path)) == 1
    (tmp_path / one.name / "correct.bin").write_bytes(bytes(1250))
    with pytest.raises(FrameError, match="correct.bin has 0 images right"):
        run_frame(tmp_path)
