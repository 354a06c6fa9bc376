"""A small study, what it comes to when nothing happens to it, and the record of what came of each fault.

A test of a fault is marked with the fault's name and its number of tries. After each try the study is run a second
time, and its tables are compared with those of the undisturbed one.
"""

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pytest
from study.conftest import resattn, run_resattn

from analysis.tables.files import write_atomic

# A file of this name beside the notebooks is what happens to them; nothing that a run follows from knows of it.
HOOK = "import pathlib\nif (fault := pathlib.Path('fault.py')).exists(): exec(fault.read_text())"
COUNT = """\
folder = pathlib.Path(out_dir)
(folder / "tables" / "count.csv").write_text("number,square\\n" + "".join(f"{n},{n * k}\\n" for k in range(99)))
(folder / "figures" / "count.svg").write_text(f"<svg xmlns='http://www.w3.org/2000/svg'><text>{n}</text></svg>")
"""
SUM = """\
counts = sorted(pathlib.Path(runs_dir).glob("*/tables/count.csv"))
pathlib.Path(out_dir, "tables", "sum.csv").write_text("lines\\n" + "".join(file.read_text() for file in counts))
"""
TRAIN = """\
from resattn.networks.catalog import named
from resattn.training.config import TrainConfig
from resattn.training.data import digits
from resattn.training.loop import train
config = TrainConfig(spec=named(model), dataset="cluttered-digits", epochs=epochs, images=images,
                     test_images=20, batch_size=batch_size, seed=seed, precision="fp32", threads=1)
run = train(config, pathlib.Path(out_dir, "run"), dataset=digits(train=images, test=20), on_other="set aside", say=print)
"""
RECORD = """\
import pandas as pd
from analysis.tables.files import write_table
from analysis.tables.schemas import Column, Schema
schema = Schema("epochs", (Column("epoch", int), Column("train_loss", float)))
write_table(pd.DataFrame(run.rows)[schema.names], pathlib.Path(out_dir, "tables", "epochs.csv"),
            {"weights": run.weights_digest}, schema=schema)
"""
COMPARE = """\
import pandas as pd
from analysis.tables.files import read_table, write_table
from analysis.tables.schemas import Column, Schema
schema = Schema("epochs", (Column("epoch", int), Column("train_loss", float)))
runs = sorted(pathlib.Path(runs_dir).glob("*/tables/epochs.csv"))
both = pd.concat([read_table(file, schema) for file in runs])
means = both.groupby("epoch").train_loss.mean().reset_index()
write_table(means, pathlib.Path(out_dir, "tables", "mean.csv"), {}, schema=schema)
"""
DATA = """\
from resattn.training import data
found = data.load(dataset)
pathlib.Path(out_dir, "tables", "data.csv").write_text(f"digest\\n{found.digest}\\n")
"""
NOTEBOOKS = {
    "10_count": ("n = 0", HOOK, COUNT),
    "20_sum": ('runs_dir = ""', HOOK, SUM),
    "30_data": ('dataset = "cifar10"', HOOK, DATA),
    "50_train": ('model = ""\nepochs = 1\nimages = 0\nbatch_size = 10\nseed = 0', HOOK, TRAIN, RECORD),
    "60_compare": ('runs_dir = ""', HOOK, COMPARE),
}
PROFILES = {
    "count": """\
notebooks_dir: notebooks
timeout_s: 1000
notebooks:
  10_count:
    each: {n: [0, 1, 2, 3]}
    folder: "n{n}"
  20_sum:
    after: {runs_dir: 10_count}
""",
    "train": """\
notebooks_dir: notebooks
timeout_s: 1000
notebooks:
  50_train:
    each: {seed: [0, 1, 2]}
    folder: "s{seed}"
    budget: {epochs: 3, images: 40, batch_size: 10}
    parameters: {model: "cifar-resnet8-basic[width=4]"}
  60_compare:
    after: {runs_dir: 50_train}
""",
    "data": """\
notebooks_dir: notebooks
notebooks:
  30_data:
    parameters: {dataset: cifar10}
""",
}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault(name, tries): what happens to a study, and how often it is tried")
    config.addinivalue_line(
        "markers", "long: a fault that takes longer than `make test` may; `make test-faults` has it"
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-faults", action="store_true", help="also the faults that take long")
    parser.addoption("--reliability", type=Path, metavar="FILE", help="write the table of the faults into FILE")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("all_faults", False):
        return
    long = [item for item in items if item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


# --- the study ------------------------------------------------------------------------------------------------------


@dataclass
class Place:
    """A study's notebooks, profile and results folder, in a folder of their own."""

    folder: Path
    profile: str
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def words(self) -> tuple[object, ...]:
        return "study", self.folder / f"{self.profile}.yaml", "--out", self.out, "--cores", 2

    def start(self, **environment: str) -> "subprocess.Popen[str]":
        return resattn(*self.words, **self.environment, **environment)

    def run(self, **environment: str) -> "subprocess.CompletedProcess[str]":
        return run_resattn(*self.words, **self.environment, **environment)

    def happens(self, code: str) -> None:
        """What every notebook does first, from now on; nothing, if empty."""
        (self.folder / "notebooks" / "fault.py").unlink(missing_ok=True)
        if code:
            write_atomic(self.folder / "notebooks" / "fault.py", "import os, time, sys, signal\n" + code)

    def tables(self) -> dict[str, bytes]:
        found = sorted(self.out.glob("[0-9]*/**/tables/*.csv"))
        return {str(file.relative_to(self.out)): file.read_bytes() for file in found}

    def copy(self, folder: Path, *, whole: bool) -> "Place":
        """The same study elsewhere, with its results or without them."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder, ignore=None if whole else shutil.ignore_patterns("out"))
        return Place(folder, self.profile, self.environment)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory):
    """Gives, of a profile, the study that was left alone. All test processes share it."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def get(profile: str) -> Place:
        place = Place(base / f"undisturbed-{profile}", profile)
        if profile == "data":
            place.environment["RESATTN_DATA"] = str(base / "data")
        with (base / f"{profile}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not place.folder.exists():
                making = Place(base / f"making-{profile}", profile, place.environment)
                _write(making)
                run = making.run()
                assert run.returncode == 0, run.stderr
                making.folder.rename(place.folder)
        return place

    return get


def _write(place: Place) -> None:
    (place.folder / "notebooks").mkdir(parents=True)
    (place.folder / f"{place.profile}.yaml").write_text(PROFILES[place.profile])
    for name, (parameters, *cells) in NOTEBOOKS.items():
        first = nbformat.v4.new_code_cell(f'{parameters}\nout_dir = "o"', metadata={"tags": ["parameters"]})
        notebook = nbformat.v4.new_notebook(cells=[first, *map(nbformat.v4.new_code_cell, cells)])
        nbformat.write(notebook, place.folder / "notebooks" / f"{name}.ipynb")
    if place.profile == "data":
        from resattn.training.layouts import CIFAR10

        folder = Path(place.environment["RESATTN_DATA"]) / CIFAR10.binary_folder
        folder.mkdir(parents=True)
        for file in (*CIFAR10.train, *CIFAR10.test):  # black pixels, and of the first class
            with (folder / file).open("wb") as f:
                f.truncate(CIFAR10.file_bytes(file))


# --- the record -----------------------------------------------------------------------------------------------------


@dataclass
class Trial:
    """The tries of one fault, and what they cost."""

    name: str
    tries: int = 0
    lost: int = 0
    wrong: int = 0

    def ends_right(self, place: Place, undisturbed: Place, *, tries: int = 1) -> None:
        """A second study, with nothing happening to it, ends with the tables of the undisturbed one.

        `tries`: the faults that it has to come over, each in a job of its own.
        """
        place.happens("")
        run = place.run()
        wanted, found = undisturbed.tables(), place.tables()
        self.tries += tries
        self.lost += len(wanted.keys() - found.keys())
        self.wrong += sum(wanted.get(name) != content for name, content in found.items())
        assert run.returncode == 0, run.stderr + (place.out / "snakemake.log").read_text()
        assert found == wanted
        assert run.stdout == f"{place.out}/report/index.html\n"


@pytest.fixture
def trial(request: pytest.FixtureRequest, record_property) -> Iterator[Trial]:
    marker = request.node.get_closest_marker("fault")
    trial = Trial(marker.args[0])
    yield trial
    record_property("fault", [trial.name, trial.tries, trial.lost, trial.wrong])
    assert trial.tries in (marker.kwargs["tries"], 0) or request.node.stash.get(FAILED, False)


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


def pytest_terminal_summary(terminalreporter, exitstatus: int, config: pytest.Config) -> None:
    """The table, into the file that `--reliability` names, between its two marks; never one with gaps."""
    path = config.getoption("reliability", None)
    if path is None or exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    rows: dict[str, list[int]] = {}
    for report in reports:
        if isinstance(report, pytest.TestReport) and report.when == "teardown":
            rows |= {fault: counts for name, (fault, *counts) in report.user_properties if name == "fault"}
    if skipped := terminalreporter.stats.get("skipped"):
        terminalreporter.write_line(f"{len(skipped)} faults were skipped: {path} is left as it is")
    else:
        write_table_of(path, rows)
        terminalreporter.write_line(f"{len(rows)} faults: {path}")


BEGIN, END = "<!-- faults: written by `make test-faults` -->", "<!-- end of the faults -->"


def read_table_of(path: Path) -> dict[str, list[int]]:
    """Of each fault in the page: tries, tables lost, tables wrong."""
    lines = path.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip().splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name: [int(count) for count in counts] for name, *counts in cells}


def write_table_of(path: Path, rows: dict[str, list[int]]) -> None:
    """A run of a part of the suite writes its own rows anew."""
    rows = read_table_of(path) | rows
    lines = ["| fault | tries | tables lost | tables wrong |", "|---|---:|---:|---:|"]
    lines += [f"| {name} | {tries} | {lost} | {wrong} |" for name, (tries, lost, wrong) in sorted(rows.items())]
    text = path.read_text(encoding="utf-8")
    table = "\n".join([BEGIN, *lines, END])
    write_atomic(path, re.sub(re.escape(BEGIN) + ".*" + re.escape(END), lambda _: table, text, flags=re.DOTALL))
