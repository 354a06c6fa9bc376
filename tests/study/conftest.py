"""Notebooks and studies made for one test."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 600.0  # against a hang; a machine with other work is slow
# A study of runs and of what compares them: cells for its notebooks.
WRITE_RUN = "(folder / 'tables' / 'r.csv').write_text(f'seed,threads\\n{seed},{os.environ[\"OMP_NUM_THREADS\"]}\\n')"
COMPARE_RUNS = """\
import pathlib
runs = sorted(file.read_text().split()[1] for file in pathlib.Path(runs_dir).glob("*/tables/r.csv"))
pathlib.Path(out_dir, "tables", "c.csv").write_text("runs\\n" + " ".join(runs) + "\\n")
"""
WRITE_TABLE = "open(f'{out_dir}/tables/t.csv', 'w').write('value\\n1\\n')"

# The report is made from real tables and tested elsewhere. Here a study only has to ask for it.
COMMAND = """
import sys, types
report = types.ModuleType("analysis.report.build")
report.build_report = lambda folder, *parts: folder / "report" / "index.html"
page = types.ModuleType("analysis.explore.page")
page.block = lambda: None
sys.modules |= {"analysis.report.build": report, "analysis.explore.page": page}
from resattn.cli import main
sys.exit(main())
"""


def resattn(*words: object, checkout: Path = ROOT, **environment: str) -> subprocess.Popen[str]:
    """The command line, started in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, words)],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_resattn(*words: object, checkout: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line, run to its end."""
    process = resattn(*words, checkout=checkout, **environment)
    stdout, stderr = process.communicate(timeout=LIMIT_S)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def tables(out: Path) -> dict[str, str]:
    """Path -> text of every table of a study."""
    return {str(file.relative_to(out)): file.read_text() for file in sorted(out.glob("[0-9]*/**/*.csv"))}


def wait_for(condition: Callable[[], object], limit_s: float = LIMIT_S) -> None:
    """Until the condition holds."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def processes_below(pid: int, what: str) -> list[int]:
    """The processes that one started, directly or not, whose command has `what` in it."""
    rows = subprocess.run(["ps", "-ewwo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    children = [line.split(maxsplit=2) for line in rows.splitlines()]
    found, todo = [], [str(pid)]
    while todo:
        parent = todo.pop()
        below = [row for row in children if row[1] == parent]
        todo += [row[0] for row in below]
        found += [int(row[0]) for row in below if what in row[-1]]
    return sorted(found)


@pytest.fixture
def write_notebook(tmp_path: Path) -> Callable[..., Path]:
    """Write a notebook: name, source of each code cell; `parameters`: of its parameters cell, None for no such cell."""

    return partial(write_notebook_in, tmp_path)


def write_notebook_in(
    folder: Path, name: str, *cells: str, parameters: str | None = 'depth = 56\nout_dir = "out"'
) -> Path:
    """The same, in a folder."""
    first = [] if parameters is None else [_cell(parameters, "parameters")]
    notebook = nbformat.v4.new_notebook(cells=[*first, *map(_cell, cells)])
    path = folder / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def _cell(source: str, *tags: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)} if tags else {})
