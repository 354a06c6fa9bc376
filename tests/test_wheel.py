"""The wheel: built, installed into a clean environment with torch and numpy alone, and used from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import nbclient
import nbformat
import pytest

import resattn

pytestmark = pytest.mark.wheel
ROOT = Path(__file__).resolve().parents[1]
Run = Callable[..., subprocess.CompletedProcess[str]]
CORE = ("torch", "numpy")


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
            name.partition("/")[0] in ("resattn", "analysis", "benchmarks", "pyproject.toml", "README.md", "LICENSE")
            and (ROOT / name).is_file()
        ):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment: the wheel, torch and numpy as here, and what they require."""
    place = tmp_path_factory.mktemp("clean")
    venv.create(place, with_pip=True)
    found = place / "bin" / "python"
    pins = [f"{name}=={metadata.version(name).partition('+')[0]}" for name in CORE]
    subprocess.run([found, "-m", "pip", "install", "--quiet", str(wheel), *pins], check=True, cwd=place)
    return found


def clean_environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONDONTWRITEBYTECODE": "1"}


def started(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command], cwd=cwd, env=clean_environment(), capture_output=True, text=True, check=False
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """`resattn WORDS` of the installed wheel, in an empty folder."""
    work = tmp_path_factory.mktemp("elsewhere")
    return lambda *words: started(python.with_name("resattn"), *words, cwd=work)


def test_it_holds_the_package_and_what_it_reads_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.partition("/")[0] for name in names} == {"resattn", f"resattn-{resattn.__version__}.dist-info"}
    files = {
        str(f.relative_to(ROOT)) for f in (ROOT / "resattn").rglob("*") if f.is_file() and "__pycache__" not in f.parts
    }
    assert files == {name for name in names if name.startswith("resattn/")}
    assert {"resattn/py.typed", "resattn/__init__.pyi", "resattn/measures/audit.schema.json"} <= files


def test_its_environment_has_no_more_than_it_requires(python: Path) -> None:
    code = "from importlib.util import find_spec; print([n for n in ('pandas', 'scipy', 'rich', 'fvcore', 'tqdm', 'analysis') if find_spec(n)])"
    assert started(python, "-c", code, cwd=python.parent).stdout == "[]\n"


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
        ("census", "--json"),
    ],
    ids=lambda words: words[0],
)
def test_it_measures_with_torch_and_numpy_alone(run: Run, words: tuple[str, ...]) -> None:
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


def test_it_judges_a_table_of_claims(run: Run, tmp_path: Path) -> None:
    lines = (ROOT / "analysis/claims/literature.csv").read_text(encoding="utf-8").splitlines()
    table = tmp_path / "mine.csv"
    table.write_text("\n".join([lines[0], next(line for line in lines if line.startswith("t7.attention56.flops,"))]))
    done = run("claims", str(table), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["verdict"] == "confirmed"


def test_it_compares_audits(run: Run, tmp_path: Path) -> None:
    kept = tmp_path / "a.json"
    kept.write_text(run("audit", "cifar-attention56", "--json").stdout)
    done = run("diff", str(kept), str(kept))
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("crosscheck", "resnet50"), "crosscheck needs fvcore and torchinfo: pip install 'resattn[crosscheck]'"),
        (
            ("train", "cifar-resnet11", "--epochs", "1", "--out", "x"),
            "train needs lightning-fabric, platformdirs, pooch, scikit-learn and tqdm: pip install 'resattn[train]'",
        ),
        (
            ("data", "fetch", "cifar10"),
            "data fetch needs lightning-fabric, platformdirs, pooch, scikit-learn and tqdm: pip install 'resattn[train]'",
        ),
        (("completion", "bash"), "completion needs shtab: pip install 'resattn[cli]'"),
        (("audit", "timm:vit", "--input", "3,8,8"), "timm:vit needs timm: pip install 'resattn[zoo]'"),
        *(
            (words, f"{name} needs a clone of the repository: clone it and run `make report` there")
            for name, words in (
                ("study", ("study", "quick")),
                ("notebook", ("notebook", "x.ipynb", "--out", "y")),
                ("report", ("report", "x")),
                ("claims without a FILE.csv", ("claims",)),
            )
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_it_lacks_is_one_line_with_the_remedy(run: Run, words: tuple[str, ...], message: str) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"resattn: {message}\n")


# -- beside a project of the user's that has the names of ours


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a package `analysis`, and modules with names of ours and of packages that we import late."""
    model = "from torch import nn\n\n\ndef build():\n    return nn.Conv2d(3, 4, 3)\n"
    trap = "raise RuntimeError('a module of the user was imported in the place of ours')\n"
    files = {
        "analysis/__init__.py": "", "analysis/models.py": model, "analysis/ops.py": trap, "analysis/study/__init__.py": trap,
        "mypkg/__init__.py": "", "mypkg/m.py": "from analysis.models import build\n",
        # Its forward imports too: the path is theirs until the audit ends.
        "m.py": "from torch import nn\nimport analysis.models\n\n\nclass Late(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.conv = analysis.models.build()\n\n    def forward(self, x):\n"
        "        import late\n\n        return late.same(self.conv(x))\n\n\nbuild = Late\n",
        "late.py": "def same(x):\n    return x\n",
        **{f"{name}.py": trap for name in ("graph", "spec", "ops", "rules", "measures", "cli", "targets", "extras",
                                           "resattn_target_m", "rich", "pandas", "jsonschema", "fvcore", "torchinfo")},
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture(params=["editable", "wheel"])
def interpreter(request: pytest.FixtureRequest) -> Path:
    """That of this checkout's environment, or the clean one of the wheel."""
    return Path(sys.executable) if request.param == "editable" else request.getfixturevalue("python")


SCRIPT = (
    "import sys; from resattn.cli import main; sys.path[:] = [p for p in sys.path if p]; sys.exit(main(sys.argv[1:]))"
)


@pytest.mark.parametrize("target", ["analysis.models:build", "mypkg.m:build", "m.py:build"])
@pytest.mark.parametrize("command", ["audit", "crosscheck"])
def test_the_command_finds_the_modules_of_the_project(
    interpreter: Path, project: Path, command: str, target: str
) -> None:
    words = [command, target, "--input", "3,8,8", "--json"]
    done = started(interpreter, "-c", SCRIPT, *words, cwd=project)
    if command == "crosscheck" and interpreter != Path(sys.executable):
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "pip install 'resattn[crosscheck]'" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["target"] == target


@pytest.mark.parametrize("module", ["resattn", "resattn.cli"])
def test_so_does_the_module_run_as_a_command(interpreter: Path, project: Path, module: str) -> None:
    done = started(interpreter, "-m", module, "audit", "m.py:build", "--input", "3,8,8", "--json", cwd=project)
    assert done.returncode == 0, done.stderr


CELL = (
    "from resattn import audit\nfrom analysis.models import build\nimport torch\n"
    "assert audit(build(), torch.zeros(1, 3, 8, 8)).quantities['params'] == 112\n"
    "for target in ('analysis.models:build', 'mypkg.m:build', 'm.py:build'):\n"
    "    print(audit(target, (3, 8, 8)).quantities['params'])\n"
)


def test_so_does_python(interpreter: Path, project: Path) -> None:
    done = started(interpreter, "-c", CELL, cwd=project)
    assert (done.returncode, done.stdout) == (0, "112\n" * 3), done.stderr


def test_so_does_a_notebook(
    interpreter: Path, project: Path, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # The kernel is that of this environment; the code is the wheel's where the wheel is meant.
    for name in ("rich", "pandas", "jsonschema", "fvcore", "torchinfo"):  # the kernel's own
        (project / f"{name}.py").unlink()
    environment = clean_environment()
    cell = CELL
    if interpreter != Path(sys.executable):
        place = tmp_path_factory.mktemp("unpacked")
        zipfile.ZipFile(wheel).extractall(place)
        environment["PYTHONPATH"] = str(place)
        cell += f"import resattn\nassert resattn.__file__.startswith({str(place)!r})\n"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    client = nbclient.NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(project)}})
    client.execute(env=environment)
    assert notebook.cells[0].outputs[0].text == "112\n" * 3
