"""A study on a cluster: its jobs wait in the queue, one is cancelled, the study is killed; the tables are the same."""

import re
import shlex
import signal
import time
from pathlib import Path

import pytest
from study.conftest import COMPARE_RUNS, WRITE_RUN, resattn, run_resattn, tables, wait_for, write_notebook

from .cluster import told

__all__ = ["write_notebook"]  # a fixture

TRAIN = """\
import os, pathlib, time
folder = pathlib.Path(out_dir)
with (folder / "steps").open("a") as steps:
    steps.write("x")
with (folder / "ids").open("a") as ids:
    ids.write(os.environ.get("SLURM_JOB_ID", "none") + " ")
while not pathlib.Path(out_dir, "..", "go").exists(): time.sleep(0.1)
"""
PROFILE = """\
notebooks_dir: notebooks
timeout_s: 300
notebooks:
  50_train:
    each: {seed: [0, 1]}
    folder: "s{seed}"
  60_compare:
    after: {runs_dir: 50_train}
"""
# For a cluster that has just been made, and to see soon what becomes of a job.
HERE = shlex.split(
    "--slurm-no-account --slurm-status-command squeue --slurm-init-seconds-before-status-checks 2 "
    "--seconds-between-status-checks 2 --default-resources mem_mb=100"
)


@pytest.fixture
def study(tmp_path: Path, write_notebook):
    """The words that run a study of two jobs and a third that follows, on the cluster."""
    write_notebook("50_train", TRAIN, WRITE_RUN, parameters='seed = 0\nout_dir = "o"')
    write_notebook("60_compare", COMPARE_RUNS, parameters='runs_dir = ""\nout_dir = "o"')
    (tmp_path / "p.yaml").write_text(PROFILE)
    return ("study", tmp_path / "p.yaml", "--out", tmp_path / "out", "--on", "slurm", "--", *HERE)


WHOLE = {
    "50_train/s0/tables/r.csv": "seed,threads\n0,1\n",
    "50_train/s1/tables/r.csv": "seed,threads\n1,1\n",
    "60_compare/tables/c.csv": "runs\n0,1 1,1\n",
}


def _until(process, condition) -> None:
    wait_for(lambda: condition() or process.poll() is not None, limit_s=120)
    assert process.poll() is None, process.communicate()


def _ids(out: Path, seed: int) -> list[str]:
    file = out / "50_train" / f"s{seed}" / "ids"
    return file.read_text().split() if file.exists() else []


def test_a_cancelled_job_is_tried_again_and_the_study_ends_right(slurm, study, tmp_path):
    out = tmp_path / "out"
    process = resattn(*study, **slurm)
    try:
        _until(process, lambda: _ids(out, 0) and _ids(out, 1))
        first = _ids(out, 0)[0]
        assert first != "none"
        told(slurm, "scancel", first)
        _until(process, lambda: len(_ids(out, 0)) == 2)
        (out / "50_train" / "go").touch()
        stdout, stderr = process.communicate(timeout=180)
    finally:
        process.kill()
    log = (out / "snakemake.log").read_text()
    assert process.returncode == 0, stderr + log
    assert "Trying to restart job" in log
    assert tables(out) == WHOLE
    assert len(set(_ids(out, 0))) == 2
    assert (out / "50_train" / "s0" / "steps").read_text() == "xx"  # what the first try had was still there
    assert (out / "50_train" / "s1" / "steps").read_text() == "x"
    assert stdout == f"{out}/report/index.html\n"
    assert re.findall(r"(\d)/3 (\S+) done", stderr)[-1] == ("3", "60_compare")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill -9"])
def test_a_study_that_ends_takes_its_jobs_from_the_queue(slurm, study, tmp_path, number):
    out = tmp_path / "out"
    process = resattn(*study, **slurm)
    try:
        _until(process, lambda: _ids(out, 0) and _ids(out, 1))
        process.send_signal(number)
        process.communicate(timeout=60)
    finally:
        process.kill()
    wait_for(lambda: not told(slurm, "squeue", "--noheader", "--states=PD,R,CG"), limit_s=60)
    (out / "50_train" / "go").touch()
    second = run_resattn(*study, **slurm)
    assert second.returncode == 0, second.stderr + (out / "snakemake.log").read_text()
    assert tables(out) == WHOLE


def test_a_training_job_asks_the_cluster_for_a_gpu(slurm, study, tmp_path, write_notebook):
    out = tmp_path / "out"
    cell = 'model = "cifar-resnet8-basic"\nepochs = 1\nimages = 0\nbatch_size = 10\nseed = 0\nout_dir = "o"'
    write_notebook("50_train", TRAIN, WRITE_RUN, parameters=cell)
    study[1].write_text("device: cuda\n" + PROFILE.replace("folder:", "budget: {epochs: 1}\n    folder:"))
    process = resattn(*study, **slurm)
    try:
        _until(process, lambda: _ids(out, 0) or _ids(out, 1))  # there is one GPU: one job at a time
        (running,) = [*_ids(out, 0), *_ids(out, 1)]
        assert "gpu:1" in told(slurm, "scontrol", "show", "job", running)
        time.sleep(2)
        assert len([*_ids(out, 0), *_ids(out, 1)]) == 1
        (out / "50_train" / "go").touch()
        _, stderr = process.communicate(timeout=180)
    finally:
        process.kill()
    assert process.returncode == 0, stderr + (out / "snakemake.log").read_text()
    assert tables(out) == WHOLE
