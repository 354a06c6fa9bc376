"""What a run follows from: a change of it, and of nothing else, makes the run stale."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from analysis.study import dependencies as module
from analysis.study.dependencies import changes, imported_files, run_inputs
from analysis.tables.provenance import ROOT
from resattn.networks.catalog import named


@pytest.fixture
def packages(tmp_path):
    """Two packages whose modules import each other in every way that Python has."""
    files = {
        "resattn/__init__.py": "",
        "resattn/spec.py": "",
        "resattn/network.py": "from resattn.spec import NetworkSpec",
        "resattn/training/__init__.py": "",
        "resattn/training/config.py": "from ..spec import NetworkSpec",
        "resattn/training/loop.py": "from . import config\n\ndef train():\n    from analysis import clock",
        "resattn/training/unused.py": "",
        "analysis/__init__.py": "",
        "analysis/clock.py": "import resattn.network as n",
        "analysis/plots.py": "import analysis.clock",
        "analysis/claims/__init__.py": "from .claims import judge",
        "analysis/claims/claims.py": "",
        "analysis/claims/literature.csv": "",
        "analysis/claims/notes.txt": "",
        "elsewhere/__init__.py": "",
    }
    for name, source in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return tmp_path


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("x = 1", []),
        ("import elsewhere, numpy", []),
        ("import resattn", ["resattn/__init__.py"]),
        ("import resattn.network", ["resattn/__init__.py", "resattn/network.py", "resattn/spec.py"]),
        ("from resattn import spec", ["resattn/__init__.py", "resattn/spec.py"]),
        ("%matplotlib inline\n!ls\nfrom resattn import spec", ["resattn/__init__.py", "resattn/spec.py"]),
        ("%%bash\nimport resattn", []),
        ("this is no Python", []),
        (
            "from resattn.training.loop import train",
            [
                "analysis/__init__.py", "analysis/clock.py", "resattn/__init__.py", "resattn/network.py",
                "resattn/spec.py", "resattn/training/__init__.py", "resattn/training/config.py",
                "resattn/training/loop.py",
            ],
        ),
        (
            "import analysis.claims",
            [
                "analysis/__init__.py", "analysis/claims/__init__.py", "analysis/claims/claims.py",
                "analysis/claims/literature.csv",
            ],
        ),
    ],
)  # fmt: skip
def test_files_reached_by_imports(packages, code, found):
    assert [str(file.relative_to(packages)) for file in imported_files([code], packages)] == found


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import resattn", []),
        ("from resattn import NetworkSpec", ["resattn/spec.py"]),
        ("from resattn import build", ["resattn/network.py", "resattn/spec.py"]),
        ("import resattn as r\nr.build", ["resattn/network.py", "resattn/spec.py"]),
        ("import resattn\nother.build", []),
        ("from resattn import *", ["resattn/network.py", "resattn/spec.py"]),
    ],
)
def test_a_name_of_the_front_door_stands_for_the_module_that_defines_it(packages, code, found):
    table = {"NetworkSpec": "resattn.spec", "build": "resattn.network"}
    (packages / "resattn/__init__.py").write_text(f"DOOR = {table}\n")
    files = [str(file.relative_to(packages)) for file in imported_files([code], packages)]
    assert files == sorted(["resattn/__init__.py", *found])


def test_modules_beside_the_notebook_count(packages, write_notebook):
    beside = write_notebook("a", "import mine").parent
    for name, code in (("mine", "import deeper, resattn.network"), ("deeper", ""), ("unused", "")):
        (beside / f"{name}.py").write_text(code)
    found = imported_files(["import mine"], packages, beside=beside)
    assert [file.stem for file in found if file.parent == beside] == ["deeper", "mine"]
    assert packages / "resattn" / "spec.py" in found
    before = run_inputs(beside / "a.ipynb", {})
    assert {"mine.py", "deeper.py", "resattn/networks/network.py"} & before["code"].keys() == {"mine.py", "deeper.py"}
    (beside / "deeper.py").write_text("1")
    assert changes(before, run_inputs(beside / "a.ipynb", {})) == ["deeper.py"]


def test_auditing_depends_on_the_rules_and_not_on_training():
    files = {str(file.relative_to(ROOT)) for file in imported_files(["from resattn import audit"])}
    assert {"resattn/measures/audit.py", "resattn/rules/table.py", "resattn/targets.py"} <= files
    assert not [file for file in files if file.startswith(("resattn/training/", "resattn/claims/", "analysis/"))]


def test_training_does_not_follow_from_plots():
    reached = {
        str(file.relative_to(ROOT))
        for file in imported_files(["import resattn.training.loop", "import analysis.tables.files"])
    }
    networks = {f"resattn/networks/{name}.py" for name in ("network", "spec")}
    assert networks | {"resattn/training/loop.py", "analysis/tables/files.py"} <= reached
    assert not [
        file for file in reached if file.startswith(("analysis/figures/", "analysis/study/", "resattn/measures/"))
    ]


def test_every_import_that_a_run_makes_is_found():
    """The static reading against what Python really loads."""
    code = "import resattn.training.loop, resattn.measures.audit"
    tell = "import sys\nprint(*(m.__file__ for m in sys.modules.values() if getattr(m, '__file__', 0)), sep='\\n')"
    run = subprocess.run(
        [sys.executable, "-c", f"{code}\n{tell}"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = [Path(line).relative_to(ROOT) for line in run.stdout.splitlines() if line.startswith(f"{ROOT}/")]
    ours = {ROOT / file for file in loaded if file.parts[0] in ("analysis", "resattn")}
    assert ours
    assert ours <= set(imported_files([code]))


def test_outputs_of_a_notebook_do_not_count_and_its_text_does(write_notebook):
    path = write_notebook("a", "1")
    before = run_inputs(path, {"depth": 56, "out_dir": "x"})
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="1")]
    notebook.cells[1].execution_count = 7
    notebook.metadata["kernelspec"] = {"name": "other", "display_name": "Other"}
    nbformat.write(notebook, path)
    assert run_inputs(path, {"depth": 56, "out_dir": "elsewhere"}) == before
    notebook.cells[1].source = "2"
    nbformat.write(notebook, path)
    assert run_inputs(path, {"depth": 56, "out_dir": "x"}) != before


def test_the_jobs_in_a_folder_that_a_parameter_names_count(write_notebook, tmp_path):
    path = write_notebook("a", "1")
    job = tmp_path / "out" / "50_train" / "s0"
    job.mkdir(parents=True)

    def read(**tables: str) -> dict:
        (job / "result.json").write_text(json.dumps({"tables": tables, "elapsed_s": len(tables)}))
        return run_inputs(
            path, {"runs_dir": "../out/50_train", "text": "no folder" * 1000, "out_dir": "../out/50_train"}
        )

    before = read(a="1")
    assert list(before["read"]) == ["runs_dir/s0"]
    after = read(a="2", b="3")
    assert changes(before, after) == ["runs_dir/s0"]
    older = {kind: value for kind, value in after.items() if kind not in ("read", "versions")}
    assert changes(older, after) == []
    assert changes({**after, "versions": {**after["versions"], "torch": "0"}}, after) == ["torch"]
    assert changes("damaged", after) == ["everything"]


def test_the_kept_runs_in_a_folder_that_a_parameter_names_count(write_notebook, tmp_path):
    path, record = write_notebook("a", "1"), tmp_path / "out" / "runs" / "s0" / "run.json"
    record.parent.mkdir(parents=True)
    record.write_text("1")
    before = run_inputs(path, {"runs_dir": "../out/runs"})
    record.write_text("20")
    assert changes(before, run_inputs(path, {"runs_dir": "../out/runs"})) == ["runs_dir/s0"]


def test_parameters_and_the_structure_of_named_networks_count(write_notebook):
    inputs = run_inputs(write_notebook("a", "1"), {"depth": 3, "networks": ("resnet50",), "model": "attention56"})
    assert inputs["parameters"] == {"depth": 3, "networks": ["resnet50"], "model": "attention56"}
    assert inputs["networks"] == {name: named(name).digest for name in ("attention56", "resnet50")}
    assert json.loads(json.dumps(inputs)) == inputs


def test_the_files_of_a_dataset_count(write_notebook, tmp_path, monkeypatch):
    path = write_notebook("a", "1")
    monkeypatch.setenv("RESATTN_DATA", str(tmp_path / "data"))
    assert run_inputs(path, {"dataset": "cifar10"})["data"] == {}
    folder = tmp_path / "data" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    (folder / "test_batch.bin").write_bytes(b"1")
    before = run_inputs(path, {"dataset": "cifar10"})["data"]
    assert before.keys() == {"test_batch.bin"}
    (folder / "test_batch.bin").write_bytes(b"22")
    assert run_inputs(path, {"dataset": "cifar10"})["data"] != before
    assert run_inputs(path, {"dataset": "cluttered-digits"})["data"] == {}


def test_a_large_file_is_read_once(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(module, "digest", lambda file: read.append(file) or "d")
    for _ in range(3):
        module._digest_of_state(tmp_path / "x", (1, 2, 3, 4))
    assert len(read) == 1
