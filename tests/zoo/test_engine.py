"""A run over models: what is measured again, what a dead process leaves, and the limits of a worker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from analysis.zoo import engine
from analysis.zoo.engine import Limits, rows_in, run
from analysis.zoo.worker import append

NAMES = {"a": ["one", "two", "three"], "b": ["four"]}
CHUNKS = {"a": 2, "b": 2}


class Process:
    """In place of a worker: measures its models in their order, and dies of some."""

    def __init__(self, deadly: str = "", at_most: int = 9) -> None:
        self.deadly, self.at_most = deadly, at_most
        self.jobs: list[list[str]] = []

    def __call__(self, job: dict[str, Any]) -> str:
        self.jobs.append(job["models"])
        for name in job["models"][: self.at_most]:
            if name == self.deadly:
                return "the process was ended by SIGKILL"
            row = {"family": job["family"], "model": name, "digest": job["digest"], "outcome": "measured"}
            append(Path(job["rows"]), row)
        return ""


def run_with(process: Process, rows: Path, monkeypatch: pytest.MonkeyPatch, again: bool = False) -> None:
    monkeypatch.setattr(engine, "_process", process)
    list(run(NAMES, rows, chunks=CHUNKS, limits=Limits(), again=again))


def test_families_take_turns_and_each_model_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process()
    run_with(process, tmp_path / "rows", monkeypatch)
    assert process.jobs == [["one", "two"], ["four"], ["three"]]


def test_a_second_run_measures_what_has_no_row_of_this_code_and_first_what_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tmp_path / "rows"
    append(rows, {"family": "a", "model": "one", "digest": engine.digest()})
    append(rows, {"family": "a", "model": "two", "digest": "of other code"})
    with rows.open("a") as file:
        file.write('{"family": "a", "model": "thr')  # the disk was full
    process = Process()
    run_with(process, rows, monkeypatch)
    assert process.jobs == [["three", "two"], ["four"]]
    process = Process()
    run_with(process, rows, monkeypatch)
    assert process.jobs == []
    run_with(process, rows, monkeypatch, again=True)
    assert process.jobs == [["one", "two"], ["four"], ["three"]]


def test_what_kills_a_process_is_a_row_and_ends_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(deadly="one")
    run_with(process, tmp_path / "rows", monkeypatch)
    rows = rows_in(tmp_path / "rows")
    assert {name: row["outcome"] for (_, name), row in rows.items()} == {
        "one": "failed", "two": "measured", "three": "measured", "four": "measured",
    }  # fmt: skip
    assert rows["a", "one"]["message"] == "the process was ended by SIGKILL"


def test_a_process_that_has_grown_ends_and_another_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(at_most=1)
    run_with(process, tmp_path / "rows", monkeypatch)
    assert {row["outcome"] for row in rows_in(tmp_path / "rows").values()} == {"measured"}
    assert process.jobs == [["one", "two"], ["four"], ["two", "three"], ["three"]]


WORKER = """
import json, sys
from unittest import mock
import torch
from analysis.zoo import models, worker
from resattn.graph.inputs import Blank, Inputs
from resattn.targets import Library

class Endless(torch.nn.Module):
    def forward(self, x):
        while True:
            x = x + 0

class Large(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.size = len(bytearray(1 << 40))

MADE = {
    "linear": lambda: torch.nn.Linear(4, 8), "endless": Endless, "large": Large, "exits": lambda: sys.exit("no"),
    "twice": lambda: torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)),
}
library = Library("torch", lambda module, name: MADE[name], lambda model, name, batch: Inputs((Blank((1, 4)),)))
family = models.Family("torch", lambda module: list(MADE), library)
with mock.patch.dict(models.FAMILIES, {"mine": family}):
    worker.main({"family": "mine", "models": list(MADE), "rows": sys.argv[1], "digest": "d", "limit_s": 2,
                 "limit_mib": 8000})
"""


def test_a_worker_measures_within_limits(tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    subprocess.run([sys.executable, "-c", WORKER, str(rows)], check=True, capture_output=True)
    made = {row["model"]: row for row in rows_in(rows).values()}
    assert list(made) == ["linear", "endless", "large", "exits", "twice"]
    linear, twice = made["linear"], made["twice"]
    assert (linear["macs"], linear["macs_torch"], linear["params"], linear["params_torch"]) == (32, 32, 40, 40)
    assert (twice["longest_path"], twice["macs_causes"], twice["numel"]) == (2, {}, 40)
    assert made["endless"]["outcome"] == "unfinished"
    assert made["endless"]["message"] == "more than 2 CPU seconds"
    assert made["large"]["outcome"] == made["exits"]["outcome"] == "failed"
    assert "MemoryError" in made["large"]["message"]
