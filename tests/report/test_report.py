"""The report: made from any study, loads nothing, hides nothing, and is never half written."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest
import studies
from bs4 import BeautifulSoup
from studies import DRAWING, HOSTILE

import analysis.report.build as build
from analysis.figures import style
from analysis.report import galleries, notebooks
from analysis.report.build import ReportError, build_report
from analysis.report.figures import NO_TEXT, FigureError, figure
from analysis.report.notebooks import NotebookPageError, safe_html
from analysis.report.reading import read_study
from analysis.tables import schemas, steps
from analysis.tables.files import digest, read_json, write_json, write_table
from analysis.tables.schemas import Schema

STYLE = (Path(build.__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")


RUN, RUN_OF_DIGITS = "50_train/cifar-attention56-s0", f"{steps.TRAIN_DIGITS}/cifar-attention56-s0"
STEPS_OF = {steps.TRAIN: (RUN, RUN_OF_DIGITS)}  # notebooks that run under other names than their own


def half(folder: Path) -> Path:
    """Two analyses and one training run are done, the rest was never begun."""
    studies.complete(folder)
    for name in ("30_cost", "40_receptive_field", "60_compare", "70_masks", "80_claims"):
        _remove(folder / name)
    for run in sorted((folder / "50_train").iterdir())[1:]:
        _remove(run)
    return folder


def empty(folder: Path) -> Path:
    return folder


def only_failed(folder: Path) -> Path:
    for name in (*studies.ANALYSES, "50_train/cifar-attention56-s0"):
        studies.failed(folder, name)
    return folder


def hostile(folder: Path) -> Path:
    """Every text that a study can bring onto a page tries to be markup."""
    studies.complete(folder)
    depth = [{**row, "network": f"attention56{HOSTILE}"} for row in studies.depth_rows()]
    studies.done(folder, "20_depth", {schemas.DEPTH: depth, schemas.ARTICLE: [{**studies.ARTICLE[0], "step": HOSTILE}]})
    runs = [{**studies.run_row("cifar-resnet56", 0), "network": HOSTILE, "dataset": HOSTILE}]
    studies.done(folder, "60_compare", {schemas.RUNS: runs, schemas.DIFFERENCES: [studies.difference_row(HOSTILE)]})
    studies.failed(folder, "30_cost", message=HOSTILE)
    write_json(folder / "study.json", {"version": 1, "profile": HOSTILE, "jobs": {HOSTILE: {"state": "not run"}}})
    return folder


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete study, built once; nobody writes into it."""
    return studies.complete(tmp_path_factory.mktemp("complete"))


@pytest.fixture
def complete(template: Path, tmp_path: Path) -> Path:
    """A copy of the complete study, for a test that alters it."""
    return Path(shutil.copytree(template, tmp_path / "complete"))


@pytest.fixture(scope="session")
def opening(template: Path) -> BeautifulSoup:
    """The opening page of the complete study."""
    return _index(template)


@pytest.fixture(
    scope="module", params=[studies.complete, half, empty, only_failed, hostile], ids=lambda make: make.__name__
)
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report."""
    make: Callable[[Path], Path] = request.param
    return build_report(make(tmp_path_factory.mktemp("study"))).parent


def _pages(report: Path) -> Iterator[tuple[Path, BeautifulSoup]]:
    for path in sorted(report.rglob("*.html")):
        yield path, BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def _index(study: Path) -> BeautifulSoup:
    """The opening page alone, without those of the notebooks."""
    _, page = next(iter(build.pages(read_study(study))))
    return BeautifulSoup(page, "html.parser")


def _words(element: object) -> str:
    return " ".join(element.get_text(" ").split())  # type: ignore[attr-defined]


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


# --- every page of every study --------------------------------------------------------------------------------------


def test_no_page_loads_anything(report: Path) -> None:
    for path, page in _pages(report):
        for element in page(True):
            assert element.name not in ("link", "iframe", "object", "embed", "base", "audio", "video"), path
            for name in ("src", "srcset", "data", "action", "xlink:href", "poster", "background"):
                value = element.get(name, "")
                assert not value or value.startswith(("data:image/", "#")), (path, element.name, name)
            assert not re.search(r"url\((?!#)", element.get("style", "")), path
        for rules in page("style"):
            assert not re.search(r"url\(|@import", rules.get_text()), path
        policy = page.find("meta", attrs={"http-equiv": "Content-Security-Policy"})
        assert policy is not None
        assert "default-src 'none'" in str(policy["content"])


def test_only_our_own_script_may_run(report: Path) -> None:
    for path, page in _pages(report):
        policy = str(page.find("meta", attrs={"http-equiv": "Content-Security-Policy"})["content"])  # type: ignore[index]
        scripts = page("script")
        assert len(scripts) == (path.name == "index.html")
        for script in scripts:
            digest = base64.b64encode(hashlib.sha256(script.get_text().encode()).digest()).decode()
            assert f"script-src 'sha256-{digest}'" in policy
        for element in page(True):
            assert not any(name.startswith("on") for name in element.attrs), (path, element)
            assert not str(element.get("href", "")).strip().lower().startswith(("javascript:", "data:")), path


def test_every_figure_says_what_it_shows(report: Path) -> None:
    for path, page in _pages(report):
        for drawing in page("svg"):
            assert drawing.get("role") == "img", path
            assert len(str(drawing.get("aria-label", ""))) > 10, path
        assert all(picture.get("alt") for picture in page("img")), path


def test_every_link_leads_somewhere(report: Path) -> None:
    pages = dict(_pages(report))
    ids = {path: [str(element["id"]) for element in page(id=True)] for path, page in pages.items()}
    for path, page in pages.items():
        assert len(ids[path]) == len(set(ids[path])), path
        for link in page("a"):
            file, _, fragment = unquote(str(link.get("href", ""))).partition("#")
            if link.find_parent(id=["bibliography", "references"]) and file:  # the only links that leave the report
                assert file.startswith("https://")
                continue
            target = (path.parent / file).resolve() if file else path
            assert target in pages, (path, link)
            # Filters of the ledger stand behind a question mark.
            assert not fragment or fragment.partition("?")[0] in ids[target], (path, link)
        for labelled in page(attrs={"aria-labelledby": True}):
            assert set(str(labelled["aria-labelledby"]).split()) <= set(ids[path]), path


def test_tables_and_headings_are_ready_for_a_screen_reader(report: Path) -> None:
    for path, page in _pages(report):
        assert page.html is not None
        assert page.html.get("lang") == "en"
        assert len(page("h1")) >= 1, path
        assert len(page("main")) == 1
        assert all(cell.get("scope") in ("col", "row") for cell in page("th")), path
        for region in page(attrs={"role": "region"}):
            assert region.get("aria-label"), path
            assert region.get("tabindex") == "0", path


def test_a_report_is_light_enough_to_send(report: Path) -> None:
    assert sum(path.stat().st_size for path in report.rglob("*")) < build.MAX_BYTES


# --- what the page says ---------------------------------------------------------------------------------------------


def test_the_opening_answers_the_question(opening: BeautifulSoup) -> None:
    words = _words(opening.find(id="answer"))
    assert "What does the 56 in Attention-56 count?" in words
    assert "Named 56, really 80." in words
    assert "a forward pass executes 111" in words
    assert "56 + 14 + 8 + 2 = 80" in words
    assert "31.0\N{NO-BREAK SPACE}M parameters" in words.replace("31.0 M", "31.0\N{NO-BREAK SPACE}M")
    assert "1,155 px with the masks" in words
    assert "427 px without" in words
    assert studies.DATASET in words
    assert "2 seeds each" in words
    assert "incomplete" not in words


def test_the_opening_follows_the_tables(complete: Path) -> None:
    rows = [
        {**row, "value": row["value"] + 1} if row["quantity"] == "longest_path" else row for row in studies.depth_rows()
    ]
    studies.done(complete, "20_depth", {schemas.DEPTH: rows, schemas.MODULES: studies.module_rows()})
    opening = _words(_index(complete).find(id="answer"))
    assert "really 81" in opening
    assert "= 80" not in opening  # the modules no longer add up to it, so no sum is shown


def test_the_strip_has_one_cell_a_layer(opening: BeautifulSoup) -> None:
    bars = opening.select(".strip .bar")
    cells = [sum(int(re.sub(r"\D", "", str(part["style"]))) for part in bar.select(".part")) for bar in bars]
    assert cells == [56, 80]


def test_every_claim_has_a_row_to_link_to(opening: BeautifulSoup) -> None:
    rows = opening.select("#ledger tbody tr")
    claims = studies.claim_rows()
    assert [row["id"] for row in rows] == [f"claim-{claim['id']}" for claim in claims]
    for row, claim in zip(rows, claims, strict=True):
        assert row["data-verdict"] == claim["verdict"]
        assert row["data-source"] == claim["source"]
        assert claim["verdict"] in row.get_text()
        assert claim["quote"] in row.get_text()
        assert row.find("a", href=f"#{row['id']}") is not None
    form = opening.find(id="filters")
    assert form is not None
    assert form.has_attr("hidden")
    assert not any(row.has_attr("hidden") for row in rows)
    offered = [option["value"] for option in opening.select("#filters select[name=verdict] option")]
    assert offered == ["", *studies.VERDICTS]
    assert {"attention56", "resnet50", "resnet152"} <= {
        o["value"] for o in opening.select("select[name=subject] option")
    }


def test_claims_with_one_anchor_are_told_apart(tmp_path: Path) -> None:
    rows = [{**studies.claim_rows(1)[0], "id": id} for id in ("a b", "a  b", "a/b")]
    studies.done(tmp_path, "80_claims", {schemas.CLAIMS: rows})
    ids = [row["id"] for row in _index(tmp_path).select("#ledger tbody tr")]
    assert len(set(ids)) == 3


def test_the_answer_is_what_the_comparison_concludes(tmp_path: Path) -> None:
    runs = [studies.run_row(network, seed) for network in studies.TRAINED for seed in range(6)]
    differences = [studies.difference_row(network) for network in ("cifar-resnet56", "cifar-resnet74")]
    studies.done(tmp_path, "60_compare", {schemas.RUNS: runs, schemas.DIFFERENCES: differences})
    page = _index(tmp_path)
    words = _words(page.find(id="training"))
    assert "conclusion about cifar-resnet56 conclusion about cifar-resnet74 a made-up scope" in words
    assert words.count("a made-up scope") == 1
    for id in ("training", "worth", "answer"):
        assert "6 seeds" in _words(page.find(id=id))
    order = "The test error of CIFAR Attention-56 is 1.2 points lower than that of"
    for id in ("answer", "abstract", "worth"):
        for other in ("CIFAR ResNet-56", "CIFAR ResNet-74"):
            assert f"{order} {other}" in _words(page.find(id=id)), id
    cells = [[c.get_text() for c in row.find_all("td")] for row in page.select("#training tr")]
    assert ["2", "-1.25", "-2.00 to -0.50", "0.030", "conclusion about cifar-resnet56"] in cells


def test_without_an_interval_there_is_a_dash(tmp_path: Path) -> None:
    runs = [studies.run_row(network, seed) for network in studies.TRAINED for seed in range(2)]
    none = {"low": None, "high": None, "p_value": None}
    rows = [studies.difference_row("cifar-resnet56", **none), studies.difference_row("x", **none, mean=None)]
    studies.done(tmp_path, "60_compare", {schemas.RUNS: runs, schemas.DIFFERENCES: rows})
    cells = [[c.get_text() for c in row.find_all("td")] for row in _index(tmp_path).select("#training tr")]
    assert ["2", "-1.25", "\N{EN DASH}", "\N{EN DASH}", "conclusion about cifar-resnet56"] in cells
    assert ["2", "\N{EN DASH}", "\N{EN DASH}", "\N{EN DASH}", "conclusion about x"] in cells


def test_seeds_that_not_all_networks_share_do_not_count(tmp_path: Path) -> None:
    runs = [studies.run_row(network, seed) for network in studies.TRAINED for seed in range(6)][:-1]
    studies.done(tmp_path, "60_compare", {schemas.RUNS: runs})
    opening = _words(_index(tmp_path).find(id="answer"))
    assert "5 seeds each" in opening
    assert "The networks were not compared, so no order of them is claimed." in opening


def test_errors_stand_beside_the_chance_level(opening: BeautifulSoup) -> None:
    assert "chance level 90.0 %" in _words(opening.find(id="answer"))  # ten classes
    assert "4 epochs on 2,000 images" in _words(opening.find(id="answer"))


def test_no_chance_level_without_a_known_number_of_classes(tmp_path: Path) -> None:
    studies.done(tmp_path, "60_compare", studies.TABLES["60_compare"])
    assert "chance level" not in _words(_index(tmp_path))


def test_runs_are_shown_without_their_comparison(complete: Path) -> None:
    _remove(complete / "60_compare")
    training = _words(_index(complete).find(id="training"))
    assert "6 runs" in training
    assert "36.10" in training
    assert "60_compare.ipynb has not run" in training


def test_masks_stand_beside_their_controls(opening: BeautifulSoup) -> None:
    section = opening.find(id="masks")
    words = _words(section)
    assert "CIFAR Attention-56 has a test error of 61.5 %" in words
    assert "Training changes the AUC of its masks by +0.20" in words  # 0.75 after, 0.55 before
    assert "minus that of the trunk's features is +0.15" in words
    assert "CIFAR Attention-56 mask after 0.75 0.75 0.75" in words
    assert section.find("svg") is not None  # type: ignore[union-attr]


def test_masks_that_were_not_measured_are_a_gap(complete: Path) -> None:
    _remove(complete / "70_masks")
    assert "70_masks.ipynb has not run. resattn study quick runs it." in _words(_index(complete).find(id="masks"))


def test_a_study_of_its_own_is_complete_without_what_it_never_planned(complete: Path) -> None:
    _remove(complete / "20_depth")
    for name in ("plan.json", "study.json"):
        record = json.loads((complete / name).read_text())
        record["jobs"].pop("20_depth")
        write_json(complete / name, record)
    page = _index(complete)
    assert "20_depth.ipynb is not part of this study. resattn study quick runs it." in _words(page.find(id="depth"))
    assert "incomplete" not in _words(page)


def test_runs_with_and_without_label_noise_are_kept_apart(complete: Path) -> None:
    runs = [
        {**studies.run_row("cifar-resnet56", seed), "label_noise": noise, "test_error_pct": 10 + 100 * noise}
        for noise in (0.1, 0.5)
        for seed in (0, 1)
    ]
    differences = [{**studies.difference_row("cifar-resnet56"), "label_noise": 0.5}]
    studies.done(complete, "60_compare", {schemas.RUNS: runs, schemas.DIFFERENCES: differences})
    words = _words(_index(complete).find(id="training")).replace("\N{NO-BREAK SPACE}", " ")
    assert "CIFAR ResNet-56, 10 % label noise 56 56" in words
    assert "2 20.00 20.00 20.00" in words
    assert "2 60.00 60.00 60.00" in words
    assert "CIFAR ResNet-56, 50 % label noise 2 -1.25" in words.replace("\N{MINUS SIGN}", "-")


def test_how_it_was_made(opening: BeautifulSoup) -> None:
    made = _words(opening.find(id="made"))
    assert studies.COMMIT in made
    assert "with changes that were not committed" in made
    assert studies.DATASET in made
    assert "Seeds 0, 1" in made
    assert "a made-up processor" in made
    assert "torch 0.0.1" in made.replace("\N{NO-BREAK SPACE}", " ")
    assert "2 min 42 s" in made.replace("\N{NO-BREAK SPACE}", " ")  # 13 jobs of 12.5 s


def test_each_executed_notebook_is_a_page(complete: Path) -> None:
    index = build_report(complete)
    pages = {path.stem for path in (index.parent / "pages").iterdir()}
    assert pages == {job.replace("/", "-") for job in (*studies.ANALYSES, *_trainings())}
    text = (index.parent / "pages" / "20_depth.html").read_text(encoding="utf-8")
    page = BeautifulSoup(text, "html.parser")
    assert "A made-up notebook" in _words(page.h1)
    assert f"Its question {HOSTILE}" in _words(page)  # words of a markdown cell, not a script
    assert page.select_one(".code .highlight") is not None
    assert len(page("svg")) == 2
    assert f"printed {HOSTILE}" in page.get_text()
    assert page.select_one(".scroll table thead th") is not None


def _trainings() -> list[str]:
    return [f"50_train/{network}-s{seed}" for network in studies.TRAINED for seed in range(2)]


# --- what is missing ------------------------------------------------------------------------------------------------


def test_an_empty_folder_gives_a_report_that_says_how_to_fill_it(tmp_path: Path) -> None:
    study = tmp_path / "quick"
    study.mkdir()
    page = _index(study)
    text = _words(page)
    for notebook in ("20_depth", "30_cost", "40_receptive_field", "50_train", "80_claims"):
        assert f"{notebook}.ipynb has not run. resattn study quick runs it." in text
    assert "0 of 8 jobs are done" in text


def test_half_a_study_says_what_is_not_there(tmp_path: Path) -> None:
    page = _index(half(tmp_path))
    assert "really 80" in _words(page.find(id="answer"))
    assert "3 of 13 jobs are done; not run:" in _words(page.find(id="answer"))
    assert "30_cost.ipynb has not run" in _words(page.find(id="cost"))
    assert "1 run of 6 planned" in _words(page.find(id="training"))
    assert "One network alone allows no comparison" in _words(page.find(id="answer"))


def test_a_failed_run_shows_its_error_its_notebook_and_its_log(complete: Path) -> None:
    _remove(complete / "30_cost")
    studies.failed(complete, "30_cost")
    page = BeautifulSoup(build_report(complete).read_text(encoding="utf-8"), "html.parser")
    assert "ZeroDivisionError" in _words(page.find(id="cost"))
    assert "failed: 30_cost" in _words(page.find(id="answer"))
    assert page.select_one("#cost a[href='pages/30_cost.html']") is not None
    assert page.select_one("#notebooks td.state-failed") is not None
    notebook = BeautifulSoup(
        (complete / "report" / "pages" / "30_cost.html").read_text(encoding="utf-8"), "html.parser"
    )
    assert "division by zero" in _words(notebook.select_one("pre.error"))
    assert _words(notebook).count("This run failed") == 1
    assert f"the last words of the kernel {HOSTILE}" in notebook.select_one("#log + pre").get_text()  # type: ignore[union-attr]


def test_an_unfinished_run_is_called_so(tmp_path: Path) -> None:
    write_json(tmp_path / "20_depth" / "inputs.json", {})
    assert "20_depth.ipynb is unfinished: it was interrupted, or is still running." in _words(
        _index(tmp_path).find(id="depth")
    )


def test_an_altered_table_is_not_shown(complete: Path) -> None:
    table = complete / "20_depth" / "tables" / "depth.csv"
    table.write_text(table.read_text().replace("80", "90"))
    page = _index(complete)
    assert "90" not in _words(page.find(id="question"))
    assert re.search(r"depth.csv: found sha256 \w+; expected \w+, as its result says", _words(page.find(id="depth")))
    assert page.select_one("#notebooks td.state-altered") is not None


@pytest.mark.parametrize("how", ["its digests were adapted", "it is not listed", "its result was edited", "its page"])
def test_what_no_result_confirms_is_not_shown(complete: Path, how: str) -> None:
    """Even a table with a provenance of its own, and a result that lists it but is not as it was written."""
    job = complete / "20_depth"
    rows = [{**r, "value": 8000} if r["quantity"] == "longest_path" else r for r in studies.depth_rows()]
    if how == "its page":
        page = json.loads((job / "notebook.ipynb").read_text())
        page["cells"].append(studies.code("8000", [studies.display({"text/plain": "8000"})]))
        (job / "notebook.ipynb").write_text(json.dumps(page))
    else:
        write_table(pd.DataFrame(rows), job / "tables" / "depth.csv", {}, schema=schemas.DEPTH)
        result = read_json(job / "result.json")
        if how == "it is not listed":
            del result["tables"]["tables/depth.csv"]
        if how != "its digests were adapted":
            result["tables"]["tables/depth.csv"] = digest(job / "tables" / "depth.csv")
            write_json(job / "result.json", result)
    index = build_report(complete)
    pages = index.read_text(encoding="utf-8"), (index.parent / "pages" / "20_depth.html").read_text(encoding="utf-8")
    assert not any(re.search(r"8,?000\b", _words(BeautifulSoup(page, "html.parser").main)) for page in pages)
    assert (
        "notebook.ipynb cannot be shown: found sha256" in pages[1] if how == "its page" else "depth.csv: " in pages[0]
    )
    assert "state-altered" in pages[0]


def test_a_part_that_its_tables_contradict_is_a_gap(complete: Path) -> None:
    rows = [{**studies.module_rows()[0], "mask_path": 10, "module": "x"}, *studies.module_rows()]
    studies.done(complete, "20_depth", {schemas.DEPTH: studies.depth_rows()[:3], schemas.MODULES: rows})
    studies.done(
        complete, "40_receptive_field", {schemas.RECEPTIVE_FIELD: [{**studies.field_rows()[0], "network": "x"}]}
    )
    page = _index(complete)
    assert "6 runs" in _words(page.find(id="training"))


# Sources and outputs of every kind that a notebook may hold, each of which tries to be markup.
EVIL = (
    "<script>alert(1)</script><style>*{display:none}</style><meta http-equiv='refresh' content='0;url=https://e.org'>"
    "<iframe src='https://e.org'></iframe><img src=x onerror='alert(1)'><a href='javascript:alert(1)'>a</a>"
    "<base href='https://e.org'><form action='https://e.org'><button>b</button></form><svg onload='alert(1)'></svg>"
    "</pre></div></article></main><link rel=stylesheet href='https://e.org'>"
)
MIMES = (
    "application/pdf", "image/svg+xml", "image/png", "image/jpeg", "text/html", "text/markdown", "text/plain",
    "text/latex", "application/javascript", "application/vnd.jupyter.widget-view+json", "application/x-other",
    "text/vnd.mermaid", "application/json",
)  # fmt: skip


def _evil_cells() -> Iterator[dict[str, object]]:
    for mime in ("", "text/html", "text/x-other", "TEXT/HTML"):
        yield {"cell_type": "raw", "metadata": {"raw_mimetype": mime, "format": mime}, "source": EVIL}
    yield {"cell_type": "markdown", "metadata": {}, "source": EVIL}
    yield {"cell_type": "markdown", "metadata": {}, "source": f"[a]: javascript:alert(1)\n\n[b][a] `{EVIL}` $${EVIL}$$"}
    for opened, closed in (
        ("<!-- --!>", "-->"),
        ("<![CDATA[", "]]>"),
        ("<style><!--</style>", "-->"),
        ("<math><mtext>", ""),
    ):
        yield {"cell_type": "markdown", "metadata": {}, "source": opened + EVIL + closed}
    for name, attached in (("a.svg", {"a.svg": {"image/svg+xml": EVIL}}), ("missing.png", {})):
        source = f"![shown as words](attachment:{name})\n\n```html' onload='alert(1)\n{EVIL}\n```"
        yield {"cell_type": "markdown", "metadata": {}, "source": source, "attachments": attached}
    outputs = [
        *({"output_type": kind, "data": {mime: EVIL}, "metadata": {"alt": EVIL, mime: {"alt": EVIL}}, **more}
          for mime in MIMES for kind, more in (("display_data", {}), ("execute_result", {"execution_count": 1}))),
        *({"output_type": "stream", "name": name, "text": EVIL} for name in ("stdout", "stderr", "stdin")),
        {"output_type": "error", "ename": EVIL, "evalue": EVIL, "traceback": [EVIL, f"\x1b[31m{EVIL}"]},
    ]  # fmt: skip
    about = {"tags": ["parameters"], "collapsed": True, "magics_language": "html", "name": EVIL}
    yield {"cell_type": "code", "metadata": about, "source": EVIL, "execution_count": 1, "outputs": outputs}


@pytest.mark.parametrize("cell", [*_evil_cells(), {**list(_evil_cells())[-1], "execution_count": EVIL}])
def test_no_block_of_a_notebook_page_lets_markup_through(tmp_path: Path, cell: dict[str, object]) -> None:
    path = tmp_path / "n.ipynb"
    about = {"title": EVIL, "language_info": {"name": EVIL, "pygments_lexer": "html"}, "widgets": {"a": EVIL}}
    path.write_text(json.dumps({"cells": [cell], "metadata": about, "nbformat": 4, "nbformat_minor": 4}))
    try:
        body = notebooks.Pages().body(path)
    except NotebookPageError:  # what no notebook may hold is a gap
        assert cell.get("execution_count") == EVIL
        return
    page = BeautifulSoup(body, "html.parser")
    named = ("script", "style", "meta", "iframe", "base", "form", "button", "link", "object", "embed", "input")
    assert not page(named)
    for element in page(True):
        assert not any(name.startswith("on") or name in ("action", "srcset", "formaction") for name in element.attrs)
        assert not re.search("javascript:|e.org", str(element.get("href", "")) + str(element.get("src", "")))
    assert body.count("<div") == body.count("</div>")


def test_the_template_has_every_block_that_shows_what_a_notebook_holds() -> None:
    """A block that nbconvert adds has to be looked at before it shows anything."""
    exporter = notebooks.Pages()._exporter
    sources = [
        exporter.environment.loader.get_source(exporter.environment, name)[0]
        for name in ("null.j2", "display_priority.j2")
    ]
    blocks = set(re.findall(r"block (\w+)", " ".join(re.sub(r"\{#.*?#\}", "", s, flags=re.DOTALL) for s in sources)))
    ours = set(re.findall(r"block (\w+)", (notebooks.TEMPLATES / "notebook" / "index.html.j2").read_text()))
    structure = {
        "header", "body", "body_header", "body_loop", "any_cell", "input_group", "output_group", "output_prompt",
        "outputs", "stream", "display_data", "body_footer", "footer",
    }  # fmt: skip
    assert blocks - ours == structure


def test_a_page_takes_time_in_proportion_to_its_size_and_says_what_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    for name in ("safe_html", "safe_prose"):
        real = getattr(notebooks, name)
        monkeypatch.setattr(notebooks, name, lambda markup, real=real: seen.append(len(markup)) or real(markup))
    rows = "<table><tbody>" + "<tr><td>1</td></tr>" * 200_000 + "</tbody></table>"
    cells: list[dict[str, object]] = [
        studies.code("1", [studies.display({"text/html": rows, "text/plain": "rows"})]),
        studies.code(
            "2", [studies.display({"text/html": f"<table><tbody><tr><td>{'1' * 29_000}x</td></tr></tbody></table>"})]
        ),
        studies.code(
            "3",
            [studies.display({"text/html": "<a " * 9_000}), studies.display({"text/html": "<table><tr><td>" * 1_900})],
        ),
        *(studies.code("4", [studies.display({"text/html": "<b>" * 5_000 + "</b>" * at})]) for at in (0, 5_000)),
        studies.code("'a" * 75_000, []),
        *(studies.code(f"{k}", [{"output_type": "stream", "name": "stdout", "text": "x" * 50_000}]) for k in range(10)),
        {"cell_type": "markdown", "id": "long", "metadata": {}, "source": "*a" * 50_000},
    ]
    studies.write_notebook(tmp_path, *cells)
    body = notebooks.Pages().body(tmp_path / "notebook.ipynb")
    assert body.count("too long for this page") == 5
    assert body.count("[the rest is in the notebook]") > 3
    assert body.count("x") < notebooks.PAGE_TEXT + 10_000
    assert all(size < 10 * notebooks.MARKUP for size in seen)


def test_a_page_has_a_number_of_cells_and_outputs_and_colours_no_language_but_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lexers of other languages may take minutes for a cell, so a notebook and its prose do not choose one."""
    monkeypatch.setattr(notebooks, "CELLS", 20)
    fence = {"cell_type": "markdown", "id": "m", "metadata": {}, "source": "```basemake\n" + "(" * 5_000 + "\n```"}
    cells = [
        fence,
        studies.code("1", [studies.display({"text/plain": "an output"})] * 50),
        *[studies.code("2", [])] * 30,
    ]
    about = {"language_info": {"name": "x", "pygments_lexer": "basemake"}}
    content = {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "n.ipynb").write_text(json.dumps(content))
    body = notebooks.Pages().body(tmp_path / "n.ipynb")
    assert body.count("an output") == 20
    assert body.count('class="code"') == 19
    assert body.count("the rest is in the notebook") == 2
    assert "hl-basemake" not in body


def test_a_long_number_is_compared_in_no_time() -> None:
    assert build._leading_number("1" * 10_000_000 + "x") == ""
    assert build._leading_number("1" * 20 + " M") == "1.111111111e+25"
    assert not notebooks._is_number("1" * 10_000_000 + "x")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("deep.svg", "<svg xmlns='http://www.w3.org/2000/svg'>" + "<g>" * 3_000 + "</g>" * 3_000 + "</svg>"),
        ("wide.svg", "<svg xmlns='http://www.w3.org/2000/svg' width='1.2.3pt' height='1'/>"),
        ("wider.svg", f"<svg xmlns='http://www.w3.org/2000/svg' width='{'9' * 400}pt' height='1'/>"),
        ("binary.svg", "\x00\x01"),
    ],
)  # fmt: skip
def test_one_bad_figure_is_not_the_end_of_the_report(complete: Path, name: str, text: str) -> None:
    (complete / "20_depth" / "figures" / name).write_text(text)
    studies.list_again(complete / "20_depth")
    assert "really 80" in _words(_index(complete).find(id="answer"))


def _deep(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    "text",
    [
        _deep(100_000),
        '{"cells": ' + _deep(100_000) + ', "nbformat": 4}',
        '{"cells": [{"cell_type": "markdown", "metadata": {}, "source": "# \\ud800"}], "metadata": {}, "nbformat": 4, "nbformat_minor": 4}',
        *(
            json.dumps(
                {"cells": [{**studies.code("1", []), "id": id_}], "metadata": {}, "nbformat": 4, "nbformat_minor": n}
            )
            for id_, n in ((None, 5), ("a b", 5), ("a", 4))
        ),
    ],
    ids=["deep", "deep cells", "a lone surrogate", "a null id", "an id that is none", "an id of a later format"],
)
def test_one_bad_page_is_not_the_end_of_the_report(complete: Path, text: str) -> None:
    place = complete / "20_depth"
    for file in ("notebook.ipynb", "log.txt", "failure.json"):
        (place / file).write_text(text)
    studies.list_again(place)
    for file in (
        "study.json",
        "plan.json",
        "30_cost/result.json",
        "40_receptive_field/tables/receptive_field.provenance.json",
    ):
        (complete / file).write_text(text)
    index = build_report(complete)
    assert "really 80" in _words(BeautifulSoup(index.read_text(encoding="utf-8"), "html.parser").find(id="answer"))
    shown = "cannot be shown" not in (index.parent / "pages" / "20_depth.html").read_text(encoding="utf-8")
    assert shown == (_deep(1000) not in text)


def test_devices_and_fifos_are_not_opened(complete: Path) -> None:
    files = [path for path in complete.rglob("*") if path.is_file()]
    for path in files:
        path.unlink()
        os.mkfifo(path)
    assert "0 of " in _words(_index(complete))


def test_a_job_of_a_long_name_has_a_page(tmp_path: Path) -> None:
    for end in "ab":
        studies.done(tmp_path, f"50_train/{'x' * 240}{end}-s0", {})
    write_json(tmp_path / "study.json", {"version": 1, "jobs": {"y" * 5000: {}, "a\0b": {}}})
    assert len(list((build_report(tmp_path).parent / "pages").iterdir())) == 2


def test_a_table_without_a_stated_column_is_a_gap(tmp_path: Path) -> None:
    place = studies.done(tmp_path, "20_depth", {})
    another = Schema("depth", tuple(column for column in schemas.DEPTH.columns if column.name != "quantity"))
    write_table(pd.DataFrame(columns=another.names), place / "tables" / "depth.csv", {}, schema=another)
    studies.list_again(place)
    assert "20_depth, depth.csv: found columns network, value, unit; expected also quantity." in _words(
        _index(tmp_path).find(id="depth")
    )


EVERY = [  # the explorer's table belongs to no study
    (schema, step)
    for schema in schemas.SCHEMAS
    for step in STEPS_OF.get(schema.notebook, (schema.notebook,))
    if step != steps.EXPLORE
]


@pytest.fixture(scope="module")
def larger(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study in which every notebook ran that any study runs."""
    folder = Path(shutil.copytree(template, tmp_path_factory.mktemp("larger") / "study"))
    for name in (RUN_OF_DIGITS, steps.RESPONSE, steps.LAYOUTS, steps.PROTOCOL):
        studies.done(folder, name, {})
    return folder


@pytest.mark.parametrize(("schema", "job"), EVERY, ids=lambda value: getattr(value, "name", value))
def test_a_table_that_is_removed_from_a_finished_study_is_a_named_gap(schema: Schema, job: str, larger: Path) -> None:
    table, away = larger / job / "tables" / schema.file, larger / "away.csv"
    table.rename(away)
    try:
        _, page = next(iter(build.pages(read_study(larger))))
    finally:
        away.rename(table)
    gaps = set(re.findall(r'<div class="gap"><p>(.*?)\.', page.replace(".ipynb", "").replace(".csv", "")))
    assert gaps == {f"{job}: its table {schema.name} is missing"}


def test_a_finished_study_has_no_gap(opening: BeautifulSoup) -> None:
    assert opening.select(".gap:not(#no-claims)") == []


@pytest.mark.parametrize(
    "rubbish", ["", "{", "[]", '{"nbformat": 4}', '{"nbformat": 4, "nbformat_minor": 5, "cells": [1]}']
)
def test_rubbish_in_place_of_files_is_survived(complete: Path, rubbish: str) -> None:
    for name in (
        "study.json",
        "plan.json",
        "20_depth/notebook.ipynb",
        "30_cost/result.json",
        "40_receptive_field/failure.json",
    ):
        (complete / name).write_text(rubbish)
    page = BeautifulSoup(build_report(complete).read_text(encoding="utf-8"), "html.parser")
    assert "really 80" in _words(page.find(id="answer"))
    assert "cannot be shown" in (complete / "report" / "pages" / "20_depth.html").read_text(encoding="utf-8")


def test_a_name_with_markup_shows_as_text(tmp_path: Path) -> None:
    page = _index(hostile(tmp_path))
    for id in ("answer", "depth", "training", "claims", "notebooks"):
        assert HOSTILE in page.find(id=id).get_text(), id  # type: ignore[union-attr]
    assert len(page("script")) == 1


# --- figures --------------------------------------------------------------------------------------------------------


def test_drawings_share_a_page_without_sharing_ids() -> None:
    first, second = (figure(DRAWING, name="made_up", prefix=p) for p in ("a", "b"))
    assert "url(#a-clip)" in first.svg
    assert 'id="a-clip"' in first.svg
    assert '"#a-line"' in first.svg
    assert "url(#b-clip)" in second.svg
    assert "a-clip" not in second.svg
    assert first.alt == "A made-up figure. It shows a line that rises from 1 to 3."
    assert first.title == "A made-up figure."
    assert first.width_px == 864
    assert "<style" not in first.svg  # its rules would reach the whole page


@pytest.mark.parametrize(
    "part",
    [
        "<script>alert(1)</script>",
        "<foreignObject><p xmlns='http://www.w3.org/1999/xhtml'>x</p></foreignObject>",
        "<image href='https://example.org/a.png'/>",
        "<use href='other.svg#a'/>",
        "<rect onload='alert(1)'/>",
        "<rect style='fill:url(https://example.org/a)'/>",
        "<rect fill='url(//example.org/a)'/>",
        "<a href='https://example.org'><text>x</text></a>",
        "<style>@import 'https://example.org/a.css';</style>",
        "<rect style='fill:URL(https://example.org/a)'/>",
        "<rect style='mask-image:u\\72l(https://example.org/a)'/>",
        "<rect style='mask-image:image-set(\"https://example.org/a\" 1x)'/>",
        "<text cursor='-webkit-image-set(&quot;//example.org/a&quot; 1x), auto'>x</text>",
        "<g xml:base='https://example.org/'><use href='#a'/></g>",
        "<image href='#foreign'/>",
        "<h:image xmlns:h='http://www.w3.org/1999/xhtml' src='https://example.org/a'/>",
    ],
)
def test_a_drawing_can_neither_run_nor_load(part: str) -> None:
    drawn = figure(f"<svg xmlns='http://www.w3.org/2000/svg'><g>{part}</g></svg>", name="x", prefix="p")
    assert not re.search(r"<script|foreign|example|other\.svg|onload|import", drawn.svg)
    assert drawn.alt == NO_TEXT


@pytest.mark.parametrize("reference", ["<use href='#a{}'/>", "<rect clip-path='URL( &quot;#a{}&quot;)'/>"])
def test_a_drawing_that_refers_to_itself_over_and_over_is_no_figure(reference: str) -> None:
    def chain(length: int, times: int) -> str:
        parts = (f"<g id='a{k + 1}'>{reference.format(k) * times}</g>" for k in range(length))
        return f"<svg xmlns='http://www.w3.org/2000/svg'>{''.join(parts)}{reference.format(length)}</svg>"

    with pytest.raises(FigureError, match="draws more than"):
        figure(chain(9, 4), name="x", prefix="p")
    assert figure(chain(2, 30), name="x", prefix="p").svg.count("a1") == 31
    assert figure(chain(0, 0) + "", name="x", prefix="p").svg  # what it refers to is not there


@pytest.mark.parametrize("words", ["fill='#0072b2'", "style='font: 9px sans-serif; fill: #0072b2'"])
def test_coloured_words_can_be_read_in_both_themes(words: str) -> None:
    drawn = figure(f"<svg xmlns='http://www.w3.org/2000/svg'><text {words}>trunk</text></svg>", name="x", prefix="p")
    assert 'fill="#0072b2"' in drawn.svg
    assert 'fill:color-mix(in srgb, #0072b2 55%, var(--ink))"' in drawn.svg
    assert drawn.svg.count("fill:") == 2  # of the drawing, and of the words


@pytest.mark.parametrize("ink", sorted(set(style.ON_ROLE.values())))
def test_words_on_the_colour_of_a_role_keep_theirs(ink: str) -> None:
    svg = f"<svg xmlns='http://www.w3.org/2000/svg'><text fill='{ink}'>x</text></svg>"
    drawn = figure(svg, name="x", prefix="p").svg
    assert f'fill="{ink}"' in drawn
    assert "color-mix" not in drawn


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_mixed_words_reach_the_contrast(theme: str) -> None:
    ink, paper = _themes()[theme]["ink"], _themes()[theme]["paper"]
    for hue in [*style.ROLES.values(), *(colour for colour, _ in style.NETWORKS.values())]:
        parts = [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in (hue, ink)]
        mixed = "#" + "".join(f"{round(0.55 * a + 0.45 * b):02x}" for a, b in zip(*parts, strict=True))
        assert _contrast(mixed, paper) >= 4.5, hue


def test_an_embedded_picture_stays() -> None:
    data = "data:image/png;base64,iVBORw0KGgo="
    names = "xmlns='http://www.w3.org/2000/svg' xmlns:xlink='http://www.w3.org/1999/xlink'"
    svg = f"<svg {names}><image xlink:href='{data}'/></svg>"
    assert data in figure(svg, name="x", prefix="p").svg


@pytest.mark.parametrize("text", ["", "no drawing", "<html/>", "<svg"])
def test_what_is_no_drawing_is_named(text: str) -> None:
    with pytest.raises(FigureError, match=r"^x is no SVG"):
        figure(text, name="x", prefix="p")


def test_a_figure_that_cannot_be_shown_is_a_gap(complete: Path) -> None:
    (complete / "20_depth" / "figures" / "broken.svg").write_text("<svg")
    heavy = DRAWING.replace("</svg>", f"<path d='{'M 0 0 ' * galleries.FIGURE_BYTES}'/></svg>")
    (complete / "20_depth" / "figures" / "heavy.svg").write_text(heavy)
    studies.list_again(complete / "20_depth")
    (complete / "20_depth" / "figures" / "unlisted.svg").write_text(DRAWING)
    depth = _words(_index(complete).find(id="depth"))
    assert "broken is no SVG" in depth
    assert "heavy.svg is too large for this page" in depth
    assert "unlisted.svg: no result lists it" in depth


def test_figures_about_the_subject_come_first(tmp_path: Path) -> None:
    studies.done(tmp_path, "40_receptive_field", {schemas.RECEPTIVE_FIELD: studies.field_rows()})
    names = [f"{kind}_{n}" for kind in ("by_stage", "over_image") for n in ("attention56", "cifar-attention56")]
    for name in names:
        (tmp_path / "40_receptive_field" / "figures" / f"{name}.svg").write_text(DRAWING)
    studies.list_again(tmp_path / "40_receptive_field")
    page = _index(tmp_path)
    shown = [str(f["id"]).removeprefix("figure-40_receptive_field-") for f in page.select("#field > figure")]
    folded = [str(f["id"]).removeprefix("figure-40_receptive_field-") for f in page.select("#field details figure")]
    # That of the article stands there alone, under its number.
    assert [str(f["id"]) for f in page.select("#sight figure")] == ["fig-sight"]
    assert shown == ["by_stage_attention56", "made_up"]
    assert folded == ["over_image_cifar-attention56", "by_stage_cifar-attention56"]


def test_many_heavy_notebooks_stay_within_the_weight(tmp_path: Path) -> None:
    picture = base64.b64encode(b"\0" * 400_000).decode()
    for k in range(12):
        place = studies.done(
            tmp_path, f"50_train/cifar-resnet56-s{k}", {schemas.RUN: [studies.run_row("cifar-resnet56", k)]}
        )
        studies.write_notebook(place, studies.code("show()", [studies.display({"image/png": picture})]))
        studies.list_again(place)
    report = build_report(tmp_path).parent
    assert 2_000_000 < sum(path.stat().st_size for path in report.rglob("*")) < build.MAX_BYTES
    assert "too large for this page" in (report / "pages" / "50_train-cifar-resnet56-s9.html").read_text(
        encoding="utf-8"
    )


def test_colours_of_roles_are_those_of_the_figures() -> None:
    assert {role: build.COLOURS[role] for role in ("trunk", "mask")} == {r: style.ROLES[r] for r in ("trunk", "mask")}


# --- foreign markup -------------------------------------------------------------------------------------------------


def test_foreign_markup_keeps_its_words_and_loses_the_rest() -> None:
    clean = safe_html(
        "<style>p{color:red}</style><p onclick='x()'>kept</p><script>gone()</script><form><input></form>"
        "<img src='https://example.org/a.png' alt='a plot'><a href='javascript:x()'>link</a>"
        "<img src='data:image/png;base64,AA=='>"
    )
    assert "<p>kept</p>" in clean
    assert "a plot" in clean
    assert not re.search(r"style|gone|onclick|form|input|javascript|src=.https", clean)
    assert f'alt="{NO_TEXT}"' in clean


def test_columns_of_numbers_are_aligned() -> None:
    head = "<thead><tr><th></th><th>name</th><th>macs</th></tr></thead>"
    rows = "<tr><th>0</th><td>a</td><td>6,270,836,736</td></tr><tr><th>1</th><td>2</td><td>-1.5e3</td></tr>"
    table = BeautifulSoup(safe_html(f"<table>{head}<tbody>{rows}</tbody></table>"), "html.parser")
    assert [cell.get_text() for cell in table.select(".num")] == ["", "macs", "0", "6,270,836,736", "1", "-1.5e3"]


def test_cells_under_a_merged_cell_are_not_aligned() -> None:
    # The same rows without the merged cell are: a column is known only where each row has every cell.
    rows = "<tr><td{}>1</td><td>2</td></tr><tr><td>3</td>{}</tr>"
    merged, plain = (
        f"<table><tbody>{rows.format(*parts)}</tbody></table>" for parts in ((" rowspan='2'", ""), ("", "<td>4</td>"))
    )
    assert "num" not in safe_html(merged)
    assert "num" in safe_html(plain)


# --- written at once ------------------------------------------------------------------------------------------------


def test_a_report_that_fails_leaves_the_old_one(complete: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = build_report(complete)
    before = {path: path.read_bytes() for path in index.parent.rglob("*.html")}
    write = build.write_atomic

    def full(path: Path, text: str) -> Path:
        if path.name == "80_claims.html":
            raise OSError(28, "No space left on device", str(path))
        return write(path, text)

    monkeypatch.setattr(build, "write_atomic", full)
    with pytest.raises(ReportError, match="No space left on device"):
        build_report(complete)
    assert {path: path.read_bytes() for path in index.parent.rglob("*.html")} == before
    assert not list(complete.glob(".report*"))


def test_a_swap_that_fails_puts_the_old_report_back(complete: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_report(complete)
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.suffix == ".part":
            raise OSError(13, "Permission denied", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(ReportError, match="Permission denied"):
        build_report(complete)
    assert (complete / "report" / "index.html").is_file()
    assert not list(complete.glob(".report*"))


def test_an_old_page_does_not_survive_a_new_report(complete: Path) -> None:
    report = build_report(complete).parent
    assert (report / "pages" / "80_claims.html").exists()
    _remove(complete / "80_claims")
    build_report(complete)
    assert not (report / "pages" / "80_claims.html").exists()


def test_what_is_not_a_report_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    for name in ("thesis.txt", "index.html"):
        (tmp_path / "report" / name).write_text("years of work")
        with pytest.raises(ReportError, match="was not written by `resattn report`; move it away"):
            build_report(tmp_path)
        assert (tmp_path / "report" / name).read_text() == "years of work"


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"no folder .*nowhere; give one that `resattn study` made"):
        build_report(tmp_path / "nowhere")


def test_the_same_study_gives_the_same_pages(complete: Path) -> None:
    index = build_report(complete)
    before = {path: path.read_bytes() for path in index.parent.rglob("*.html")}
    build_report(complete)
    assert {path: path.read_bytes() for path in index.parent.rglob("*.html")} == before


# --- style ----------------------------------------------------------------------------------------------------------


def _themes() -> dict[str, dict[str, str]]:
    light, dark, printed = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", block))
        for block in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    )
    return {"light": light, "dark": light | dark, "print": light | printed}


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * d for d in colour[1:])
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
@pytest.mark.parametrize("ground", ["paper", "wash", "warn-wash"])
@pytest.mark.parametrize("ink", ["ink", "muted", "link", "good", "bad", "other", "open", "none"])
def test_text_can_be_read(theme: str, ground: str, ink: str) -> None:
    colours = _themes()[theme]
    assert _contrast(colours[ink], colours[ground]) >= 4.5


def test_numbers_on_the_strip_can_be_read() -> None:
    inks = {"outside": "#ffffff", "trunk": "#ffffff", "mask": "#17191c"}
    assert ".part.mask { color: #17191c; }" in STYLE
    assert all(_contrast(inks[part], build.COLOURS[part]) >= 4.5 for part in inks)


def test_a_claim_leads_to_its_source_and_the_headline_counts_what_can_be_tested(opening: BeautifulSoup) -> None:
    claims, section = studies.claim_rows(), opening.find(id="claims")
    assert section is not None
    for row, claim in zip(opening.select("#ledger tbody tr"), claims, strict=True):
        assert row.find("a", href=f"#source-{claim['source']}") is not None
        assert (f" by {claim['off_pct']} %" in row.get_text()) == (claim["verdict"] == "off")
        assert claim["reason"] in row.get_text()
    entries = {entry["id"]: entry.find_next_sibling("dd") for entry in opening.select("#bibliography dt")}
    assert set(entries) == {f"source-{source['source']}" for source in studies.SOURCES}
    assert [link["href"] for link in opening.select("#bibliography a")] == ["https://example.org/source0"]
    tested = sum(claim["verdict"] != "not testable" for claim in claims)
    assert f"{tested} of them can be tested here" in _words(section)
    assert f"{len(claims) - tested}: needs ImageNet" in _words(section)
