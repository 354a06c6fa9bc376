"""A study whose runs are real: one that diverges says where, and the others go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.study.job_folder import read_result
from analysis.study.runner import run_notebook
from resattn.training.checkpoint import trained

ROOT = Path(__file__).resolve().parents[2]
PROFILE = f"""\
notebooks_dir: {ROOT / "notebooks"}
shared: {{dataset: cluttered-digits}}
notebooks:
  50_train:
    each: {{model: [cifar-resnet20-basic]}}
    folder: "{{model}}"
    budget: {{epochs: 1, images: 40, batch_size: 20}}
    parameters: {{settings: width=4 test_images=20}}
  # One epoch that learns, then a rate that explodes.
  65_train_digits:
    notebook: 50_train
    each: {{seed: [0]}}
    folder: "s{{seed}}"
    budget: {{epochs: 2, images: 40, batch_size: 20}}
    parameters:
      model: cifar-resnet20-basic
      settings: width=4 test_images=20 lr=0.01 decay=1e30 milestones=0.5
"""


@pytest.mark.slow
def test_a_run_whose_loss_is_no_number_stops_and_the_study_goes_on(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(PROFILE)
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "resattn.cli",
        "study",
        str(tmp_path / "p.yaml"),
        "--out",
        str(out),
        "--cores",
        "2",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RESATTN_DATA": str(tmp_path / "no-data")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    jobs = json.loads((out / "study.json").read_text())["jobs"]
    assert {name: row["state"] for name, row in jobs.items()} == {
        "50_train/cifar-resnet20-basic": "done", "65_train_digits/s0": "failed",
    }  # fmt: skip
    message = jobs["65_train_digits/s0"]["message"]
    assert "DivergedError: " in message
    assert "in epoch 2, at step " in message
    # The checkpoint of the good epoch is whole.
    kept = trained(out / "65_train_digits" / "s0" / "run")
    assert all(value.isfinite().all() for value in kept.state_dict().values())
    assert (out / "report" / "index.html").is_file()

    # The notebook of a finished run is edited, and the run's weights are gone: it is executed again and not trained.
    job = out / "50_train" / "cifar-resnet20-basic"
    before, record = read_result(job), (job / "run" / "run.json").read_bytes()
    (job / "run" / "checkpoint.pt").unlink()
    edited = tmp_path / "notebooks" / "50_train.ipynb"
    edited.parent.mkdir()
    edited.write_text((ROOT / "notebooks" / "50_train.ipynb").read_text().replace("# One training run", "# A run"))
    given = {name: value for name, value in before["parameters"].items() if name != "out_dir"}
    run_notebook(edited, given, job)
    after = read_result(job)
    assert after["inputs"]["notebook"] != before["inputs"]["notebook"]
    assert "finished earlier, not trained again; its weights are not kept" in (job / "notebook.ipynb").read_text()
    assert (job / "run" / "run.json").read_bytes() == record
    tables = ("tables/epochs.csv", "tables/run.csv")
    assert [after["tables"][name] for name in tables] == [before["tables"][name] for name in tables]
    assert not (job / "run" / "checkpoint.pt").exists()
