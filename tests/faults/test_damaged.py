"""Every kind of file that a study reads, damaged: a byte flipped, cut in half, emptied, or another in its place."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch


def flipped(path: Path, other: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def truncated(path: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path, other: Path) -> None:
    path.write_bytes(b"")


def foreign(path: Path, other: Path) -> None:
    """The whole file of another job, or of another kind."""
    path.write_bytes(other.read_bytes())


DAMAGES = (flipped, truncated, emptied, foreign)
COUNTS = [f"10_count/n{n}" for n in range(4)]


def _damage_results(trial, undisturbed, tmp_path, file: str, *, is_result_gone: bool = False) -> None:
    """Each damage to the file of another job of a study that is done. `is_result_gone`: of one that was interrupted."""
    place = undisturbed("count").copy(tmp_path / "p", whole=True)
    for damage, job, other in zip(DAMAGES, COUNTS, [*COUNTS[1:], COUNTS[0]], strict=True):
        damage(place.out / job / file, undisturbed("count").out / other / file)
        if is_result_gone:
            (place.out / job / "result.json").unlink()
    trial.ends_right(place, undisturbed("count"), tries=len(DAMAGES))


@pytest.mark.fault("a damaged result.json", tries=4)
def test_a_result(trial, undisturbed, tmp_path):
    _damage_results(trial, undisturbed, tmp_path, "result.json")


@pytest.mark.long
@pytest.mark.fault("a damaged inputs.json of an interrupted job", tries=4)
def test_inputs(trial, undisturbed, tmp_path):
    _damage_results(trial, undisturbed, tmp_path, "inputs.json", is_result_gone=True)


@pytest.mark.long
@pytest.mark.fault("a damaged table", tries=4)
def test_a_table(trial, undisturbed, tmp_path):
    _damage_results(trial, undisturbed, tmp_path, "tables/count.csv")


@pytest.mark.long
@pytest.mark.fault("a damaged figure", tries=4)
def test_a_figure(trial, undisturbed, tmp_path):
    _damage_results(trial, undisturbed, tmp_path, "figures/count.svg")


@pytest.mark.long
@pytest.mark.fault("a damaged executed notebook", tries=4)
def test_a_page(trial, undisturbed, tmp_path):
    _damage_results(trial, undisturbed, tmp_path, "notebook.ipynb")


@pytest.mark.fault("a damaged log.txt or lock of a job", tries=8)
def test_a_log(trial, undisturbed, tmp_path):
    _damage_results(trial, undisturbed, tmp_path, "log.txt")
    _damage_results(trial, undisturbed, tmp_path, ".lock")


@pytest.mark.long
@pytest.mark.fault("a file in place of a job's folder, or a folder in place of its result", tries=2)
def test_folders(trial, undisturbed, tmp_path):
    place = undisturbed("count").copy(tmp_path / "p", whole=True)
    shutil.rmtree(place.out / COUNTS[0])
    (place.out / COUNTS[0]).write_text("a file")
    (place.out / COUNTS[1] / "result.json").unlink()
    (place.out / COUNTS[1] / "result.json").mkdir()
    trial.ends_right(place, undisturbed("count"), tries=2)


@pytest.mark.long
@pytest.mark.fault("a damaged plan.json, study.json or lock of the study", tries=12)
def test_the_study(trial, undisturbed, tmp_path):
    files = ("plan.json", "study.json", ".study.lock")
    for number, damage in enumerate(DAMAGES):  # with one job left to run
        place = undisturbed("count").copy(tmp_path / str(number), whole=True)
        (place.out / COUNTS[number] / "result.json").unlink()
        for file in files:
            damage(place.out / file, place.out / COUNTS[0] / "figures" / "count.svg")
        trial.ends_right(place, undisturbed("count"), tries=len(files))


@pytest.mark.long
@pytest.mark.fault("damaged records of snakemake", tries=5)
def test_records(trial, undisturbed, tmp_path):
    for number, damage in enumerate((*DAMAGES, None)):
        place = undisturbed("count").copy(tmp_path / str(number), whole=True)
        records = place.out / ".snakemake"
        (place.out / COUNTS[0] / "result.json").unlink()
        if damage:
            for file in [file for file in records.rglob("*") if file.is_file()]:
                damage(file, place.out / COUNTS[0] / "figures" / "count.svg")
        else:
            shutil.rmtree(records)
            records.write_text("a file")
        trial.ends_right(place, undisturbed("count"))


# --- what training goes on from -------------------------------------------------------------------------------------


RUNS = [f"50_train/s{seed}" for seed in range(3)]


def another_version(path: Path, other: Path) -> None:
    torch.save({"version": 0}, path)


def hostile(path: Path, other: Path) -> None:
    """A pickle that would end the kernel."""

    class Ends:
        def __reduce__(self):
            return os._exit, (3,)

    torch.save({"version": 1, "identity": Ends()}, path)


def _damage_runs(
    trial, undisturbed, tmp_path, file: str, damages: tuple[Callable[[Path, Path], None], ...], *, is_result_gone=True
) -> None:
    place = undisturbed("train").copy(tmp_path / damages[0].__name__, whole=True)
    for damage, job, other in zip(damages, RUNS, [*RUNS[1:], RUNS[0]], strict=True):
        damage(place.out / job / file, undisturbed("train").out / other / file)
        if is_result_gone:
            (place.out / job / "result.json").unlink()
    trial.ends_right(place, undisturbed("train"), tries=len(damages))


@pytest.mark.long
@pytest.mark.fault("a damaged checkpoint", tries=6)
def test_a_checkpoint(trial, undisturbed, tmp_path):
    _damage_runs(trial, undisturbed, tmp_path, "run/checkpoint.pt", (flipped, truncated, foreign))
    _damage_runs(trial, undisturbed, tmp_path, "run/checkpoint.pt", (hostile, emptied, another_version))
    assert len(list((tmp_path / "hostile").rglob("checkpoint-*.aside"))) == 3


@pytest.mark.long
@pytest.mark.fault("a damaged run.json, metrics.csv or timing.csv", tries=9)
def test_a_run(trial, undisturbed, tmp_path):
    for file in ("run.json", "metrics.csv", "timing.csv"):
        shutil.rmtree(tmp_path / "flipped", ignore_errors=True)
        _damage_runs(trial, undisturbed, tmp_path, f"run/{file}", (flipped, truncated, foreign))


@pytest.mark.long
@pytest.mark.fault("a damaged provenance record of a table", tries=3)
def test_a_sidecar(trial, undisturbed, tmp_path):
    file = "tables/epochs.provenance.json"
    _damage_runs(trial, undisturbed, tmp_path, file, (flipped, truncated, foreign), is_result_gone=False)


# --- what a study is made from: refused, and right again once it is put back ----------------------------------------


def _damage_a_source(trial, undisturbed, tmp_path, place, file: Path, other: Path, damages, *, job: str, says) -> None:
    whole = file.read_bytes()
    (place.out / job / "result.json").unlink()  # this is to be made again, at the first try
    for damage in damages:
        before = place.tables()
        damage(file, other)
        refused = place.run()
        assert refused.returncode in (1, 2)
        assert says in refused.stderr
        assert place.tables() == before
        file.write_bytes(whole)
        trial.ends_right(place, undisturbed(place.profile))


@pytest.mark.fault("a damaged profile", tries=3)
def test_a_profile(trial, undisturbed, tmp_path):
    place = undisturbed("count").copy(tmp_path / "p", whole=True)
    file, other = place.folder / "count.yaml", place.out / COUNTS[0] / "log.txt"
    _damage_a_source(
        trial, undisturbed, tmp_path, place, file, other, DAMAGES[1:], job=COUNTS[0], says="resattn: count.yaml"
    )


@pytest.mark.long
@pytest.mark.fault("a damaged notebook", tries=3)
def test_a_notebook(trial, undisturbed, tmp_path):
    place = undisturbed("count").copy(tmp_path / "p", whole=True)
    file, other = (place.folder / "notebooks" / f"{name}.ipynb" for name in ("10_count", "20_sum"))
    _damage_a_source(trial, undisturbed, tmp_path, place, file, other, DAMAGES[1:], job=COUNTS[0], says="10_count")


@pytest.mark.long
@pytest.mark.fault("a damaged dataset file", tries=4)
def test_a_dataset(trial, undisturbed, tmp_path):
    whole = undisturbed("data")
    place = whole.copy(tmp_path / "p", whole=True)
    home = tmp_path / "data"
    shutil.copytree(whole.environment["RESATTN_DATA"], home)
    place.environment = {"RESATTN_DATA": str(home)}
    file = next(home.glob("*/data_batch_2.bin"))

    def mislabelled(path: Path, other: Path) -> None:
        with path.open("r+b") as f:
            f.write(b"\xff")

    _damage_a_source(
        trial, undisturbed, tmp_path, place, file, place.out / "30_data" / "log.txt",
        (mislabelled, truncated, emptied, foreign), job="30_data", says="data_batch_2.bin: ",
    )  # fmt: skip


@pytest.mark.fault("a results folder of another version of the format", tries=1)
def test_another_version(trial, undisturbed, tmp_path):
    place = undisturbed("count").copy(tmp_path / "p", whole=True)
    record = json.loads((place.out / "study.json").read_text())
    (place.out / "study.json").write_text(json.dumps(record | {"version": 0}))
    (place.out / COUNTS[0] / "result.json").unlink()
    refused = place.run()
    assert refused.returncode == 1
    assert "holds the study count in version 0 of the format" in refused.stderr
    assert "move it away" in refused.stderr
    place.out.rename(tmp_path / "away")
    undisturbed("count").copy(tmp_path / "fresh", whole=True).out.rename(place.out)
    trial.ends_right(place, undisturbed("count"))
