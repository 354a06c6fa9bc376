"""The notebooks: of one shape, without outputs, without logic, and they run."""

from __future__ import annotations

import ast
import json
import re
import runpy
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import nbformat
import pytest

from analysis.statistics.conclusions import COMPARED
from analysis.study.notebook_parameters import read_parameters
from analysis.study.runner import run_notebook
from analysis.tables import schemas
from analysis.tables.files import read_table

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
OURS = (
    "00_start", "10_variants", "20_depth", "30_cost", "40_receptive_field", "50_train", "60_compare", "80_claims", "90_explore"
)  # fmt: skip


def _code(name: str) -> list[str]:
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", OURS)
def test_shape(name: str) -> None:
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    ids = [cell.id for cell in notebook.cells]
    assert len(ids) == len(set(ids))
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds[0] == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    assert "?" in notebook.cells[0].source or name == "80_claims"
    assert notebook.cells[1].metadata.get("tags") == ["parameters"]
    assert kinds[-1] == "markdown"


@pytest.mark.parametrize("name", OURS)
def test_stripped(name: str) -> None:
    for cell in nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        assert set(cell.metadata) <= {"tags"}


@pytest.mark.parametrize("name", OURS)
def test_parameters_are_literals_and_the_folder_is_its_own(name: str) -> None:
    parameters = read_parameters(FOLDER / f"{name}.ipynb")
    out_dir = Path(str(parameters["out_dir"]))
    assert out_dir.parts[:3] == ("..", "results", "interactive")
    assert out_dir.parts[3] == name


@pytest.mark.parametrize("name", OURS)
def test_no_logic_that_a_test_would_want_to_reach(name: str) -> None:
    logic = (ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.If, ast.IfExp, ast.While, ast.Try, ast.With)
    for source in _code(name):
        assert not [ast.unparse(node) for node in ast.walk(ast.parse(source)) if isinstance(node, logic)]
        assert max(map(len, source.splitlines())) <= 110


def test_the_start_names_every_other_notebook() -> None:
    words = (FOLDER / "00_start.ipynb").read_text(encoding="utf-8")
    assert [path.stem for path in sorted(FOLDER.glob("*.ipynb"))][1:] == re.findall(r"^ +\"\| `(\w+)` \|", words, re.M)


def test_all_notebooks_name_one_kernel() -> None:
    found = {str(nbformat.read(path, as_version=4).metadata.kernelspec) for path in FOLDER.glob("*.ipynb")}
    assert len(found) == 1


def test_what_the_lab_saves_is_what_is_tracked() -> None:
    path = FOLDER / "20_depth.ipynb"
    before = json.loads(path.read_text(encoding="utf-8"))
    ran = json.loads(path.read_text(encoding="utf-8"))
    ran["metadata"]["language_info"] = {"name": "python", "version": "3.11.2"}
    for cell in ran["cells"]:
        cell["metadata"]["trusted"] = True
        if cell["cell_type"] == "code":
            cell["execution_count"] = 3
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "x"}]
    save = runpy.run_path(str(FOLDER / "jupyter_server_config.py"))["without_outputs"]
    save({"type": "notebook", "content": ran}, path="20_depth.ipynb", contents_manager=None)
    assert ran == before
    save({"type": "file", "content": "text"})
    save({"type": "notebook"})


def _run(name: str, out: Path, **parameters: Any) -> Path:
    run_notebook(FOLDER / f"{name}.ipynb", parameters, out, timeout_s=600)
    for figure in sorted((out / "figures").iterdir()):
        description = ET.parse(figure).getroot().findtext("{http://www.w3.org/2000/svg}desc")
        assert description, figure.name
    assert list((out / "figures").iterdir())
    return out / "tables"


@pytest.mark.slow
def test_variants_runs(tmp_path: Path) -> None:
    tables = _run("10_variants", tmp_path / "out", networks=["attention56", "cifar-resnet56"])
    assert set(read_table(tables / "specs.csv", schemas.SPECS)["network"]) == {
        "attention56",
        "cifar-resnet56",
    }
    read_table(tables / "summary.csv", schemas.SUMMARY)
    assert [f.name for f in (tmp_path / "out/figures").iterdir()] == ["trunk_and_mask_attention56.svg"]


@pytest.mark.slow
def test_depth_runs(tmp_path: Path) -> None:
    tables = _run("20_depth", tmp_path / "out")
    depths = read_table(tables / "depth.csv", schemas.DEPTH)
    assert depths.set_index(["network", "quantity"]).loc[("attention56", "longest_path"), "value"] == 80
    read_table(tables / "modules.csv", schemas.MODULES)
    read_table(tables / "article.csv", schemas.ARTICLE)
    paths = read_table(tables / "path_lengths.csv", schemas.PATH_LENGTHS)
    assert sum(paths.loc[paths["network"] == "cifar-resnet110-basic", "n_paths"]) == 2**54


@pytest.mark.slow
def test_cost_runs(tmp_path: Path) -> None:
    networks = ["attention56", "cifar-attention56"]
    tables = _run("30_cost", tmp_path / "out", networks=networks, checked=["cifar-attention56"])
    read_table(tables / "cost.csv", schemas.COST)
    checks = read_table(tables / "crosscheck.csv", schemas.CROSSCHECK)
    assert set(checks["tool"]) == {"fvcore", "torchinfo", "torch FlopCounterMode"}
    assert (checks["unexplained"] == 0).all()
    assert len(read_table(tables / "published.csv", schemas.PUBLISHED)) >= 12


@pytest.mark.slow
def test_receptive_field_runs(tmp_path: Path) -> None:
    tables = _run("40_receptive_field", tmp_path / "out", networks=["attention56", "cifar-resnet56"])
    fields = read_table(tables / "receptive_field.csv", schemas.RECEPTIVE_FIELD)
    assert fields["value"].max() == 1155
    assert read_table(tables / "gradient.csv", schemas.GRADIENT)["agrees"].all()


@pytest.mark.slow
def test_train_compare_masks_and_responses_run(tmp_path: Path) -> None:
    budget = {"dataset": "cluttered-digits", "epochs": 2, "images": 64, "batch_size": 32}
    for model in ("cifar-attention56", "cifar-resnet11"):
        for seed in (0, 1):
            out = tmp_path / f"50_train/{model}-s{seed}"
            settings = "test_images=32 width=4"
            tables = _run("50_train", out, model=model, seed=seed, label_noise=0.25, settings=settings, **budget)
            run = read_table(tables / "run.csv", schemas.RUN)
            assert list(run["dataset"]) == ["cluttered-digits"]
            assert list(run["label_noise"]) == [0.25]
            assert len(read_table(tables / "epochs.csv", schemas.EPOCHS)) == 2
            page = (out / "notebook.ipynb").read_text()
            assert "epoch 2/2: training loss" in page
            assert "TqdmWarning" not in page + (out / "log.txt").read_text()
    runs = str(tmp_path / "50_train")
    tables = _run("60_compare", tmp_path / "60_compare", runs_dir=runs, reference="cifar-attention56[width=4]")
    assert len(read_table(tables / "runs.csv", schemas.RUNS)) == 4
    differences = read_table(tables / "differences.csv", schemas.DIFFERENCES)
    assert list(differences["n"]) == [2]
    comparison = read_table(tables / "comparison.csv", schemas.COMPARISON)
    assert set(comparison["quantity"]) == set(COMPARED)
    read_table(tables / "published.csv", schemas.PRINTED_BESIDE)
    drawn = (tmp_path / "60_compare/figures/error_against_size_noise25.svg").read_text()
    assert "cluttered-digits" in drawn
    tables = _run("70_masks", tmp_path / "70_masks", runs_dir=runs, images=32)
    masks = read_table(tables / "masks.csv", schemas.MASKS)
    assert set(masks["network"]) == {"cifar-attention56[width=4]"}
    assert (tmp_path / "70_masks/figures/heat_mean_digits_cifar-attention56-width-4.svg").exists()
    tables = _run("75_response", tmp_path / "75_response", runs_dir=runs, images=32)
    assert set(read_table(tables / "responses.csv", schemas.RESPONSES)["network"]) > set(masks["network"])


@pytest.mark.slow
def test_claims_runs(tmp_path: Path) -> None:
    tables = _run("80_claims", tmp_path / "out")
    claims = read_table(tables / "claims.csv", schemas.CLAIMS)
    assert len(claims) >= 30
    assert claims["verdict"].notna().all()
