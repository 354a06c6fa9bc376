"""The wheel: built, installed alone into an empty folder, and used from there, away from the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import resattn

pytestmark = pytest.mark.wheel
ROOT = Path(__file__).resolve().parents[1]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    # From a copy of what is in the repository: a build folder in the checkout would be left, and read next time.
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    source = tmp_path_factory.mktemp("source")
    for name in filter(None, names.split("\0")):
        if (
            name.partition("/")[0] in ("resattn", "analysis", "pyproject.toml", "README.md", "LICENSE")
            and (ROOT / name).is_file()
        ):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def run(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """`resattn WORDS` of the installed wheel. Its dependencies are those of this environment; its code is not."""
    place = tmp_path_factory.mktemp("installed")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(place), str(wheel)],
        check=True,
    )  # fmt: skip
    work = tmp_path_factory.mktemp("elsewhere")

    def run_(*words: str) -> subprocess.CompletedProcess[str]:
        start = (
            "import sys, resattn.cli as cli\n"
            f"assert cli.__file__.startswith({str(place)!r}), cli.__file__\n"
            "sys.exit(cli.main(sys.argv[1:]))"
        )
        environment = {**os.environ, "PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            [sys.executable, "-c", start, *words], cwd=work, env=environment, capture_output=True, text=True, check=False
        )  # fmt: skip

    return run_


def test_it_holds_what_is_read_at_run_time_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    needed = {
        "analysis/py.typed", "resattn/py.typed", "analysis/audit.schema.json", "analysis/claims/literature.csv",
        "analysis/claims/references.bib", "analysis/report/templates/index.html.j2",
        "analysis/report/templates/style.css", "analysis/report/templates/ledger.js",
        "analysis/report/templates/notebook/index.html.j2", "analysis/report/templates/notebook/conf.json",
    }  # fmt: skip
    assert needed <= names
    code = {str(f.relative_to(ROOT)) for d in ("analysis", "resattn") for f in (ROOT / d).rglob("*.py")}
    assert code <= names
    assert {name.partition("/")[0] for name in names} == {
        "analysis", "resattn", f"resattn-{resattn.__version__}.dist-info"
    }  # fmt: skip


def test_it_says_its_version(run: Run) -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"resattn {resattn.__version__}\n")


@pytest.mark.parametrize(
    "words",
    [
        ("list", "--json"),
        ("show", "attention56"),
        ("audit", "cifar-attention56", "--json"),
        ("match", "cifar-attention56", "--by", "longest_path", "--json"),
        ("crosscheck", "cifar-attention56", "--json"),
        ("census", "--json"),
        ("claims", "--json"),
    ],
    ids=lambda words: words[0],
)
def test_it_measures(run: Run, words: tuple[str, ...]) -> None:
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


def test_it_compares_audits(run: Run, tmp_path: Path) -> None:
    kept = tmp_path / "a.json"
    kept.write_text(run("audit", "cifar-attention56", "--json").stdout)
    done = run("diff", str(kept), str(kept))
    assert (done.returncode, done.stdout) == (0, "")


def test_it_writes_a_report(run: Run, tmp_path: Path) -> None:
    done = run("report", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (
        "no job" in (tmp_path / "report/index.html").read_text().lower()
        or "resattn study" in (tmp_path / "report/index.html").read_text()
    )


def test_it_completes_in_a_shell(run: Run) -> None:
    assert "_shtab_resattn" in run("completion", "bash").stdout


def test_a_study_is_refused_in_one_line_with_the_remedy(run: Run) -> None:
    done = run("study", "quick")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "clone the repository and run `make report`" in done.stderr
