"""The result kept in the repository: whole, made of numbers and no photo, and its report that of its tables."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from bs4 import BeautifulSoup
from scipy import stats

from analysis.claims.ledger import ledger
from analysis.claims.trained import judge_study
from analysis.explore.page import block
from analysis.report import build
from analysis.report.facts import masks
from analysis.report.reading import DONE, Job, read_study
from analysis.statistics.conclusions import difference_frame
from analysis.tables import schemas
from analysis.tables.provenance import ROOT
from analysis.tables.runs import run_frame
from analysis.trained import comparisons
from resattn.claims.claims import Claim
from resattn.claims.forms import verdict_table
from resattn.claims.measured import measure
from resattn.claims.vocabulary import TRAINING_RESULTS

FOLDER = ROOT / "results" / "reference"
STUDY = read_study(FOLDER)
JOBS = STUDY.jobs
# The runs of the accelerator, and those of the short budget beside them.
RUNS = ROOT / "results" / "protocol" / "accelerator"
NETWORKS = {"cifar-attention56", "cifar-resnet74", "cifar-resnet83"}
SHORT = {"cifar-attention56", "cifar-resnet56", "cifar-resnet74", "cifar-resnet56[width=19]"}


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_a_job_is_done_and_its_files_are_as_it_left_them(job: Job) -> None:
    assert job.state == DONE, job.message


def test_each_network_was_trained_with_the_same_seeds() -> None:
    for folder, networks, seeds in ((RUNS, NETWORKS, range(8)), (FOLDER / "50_train", SHORT, range(6))):
        runs = run_frame(folder)
        assert set(runs["network"]) == networks
        assert {tuple(sorted(part["seed"])) for _, part in runs.groupby("network")} == {tuple(seeds)}
        assert set(runs["dataset"]) == {"CIFAR-10 (JPEG q75 copy)"}
    kept = STUDY.table(schemas.RUNS)
    keys = ["network", "seed"]
    errors = [table.set_index(keys)["test_error_pct"].sort_index() for table in (run_frame(RUNS), kept)]
    assert errors[0].to_dict() == pytest.approx(errors[1].to_dict())


def test_differences_are_those_of_the_runs() -> None:
    found = difference_frame(run_frame(RUNS), "cifar-attention56", margin=0.5).set_index("network")
    kept = STUDY.table(schemas.DIFFERENCES).set_index("network")
    assert set(kept.index) == NETWORKS - {"cifar-attention56"}
    for column in ("n", "mean", "low", "high", "p_value"):
        columns = (table[column].astype(float).to_dict() for table in (found, kept))
        assert next(columns) == pytest.approx(next(columns), nan_ok=True)
    for column in ("conclusion", "scope", "equivalence"):
        assert found[column].to_dict() == kept[column].to_dict()


def _references(claim: Claim) -> list[str]:
    return [reference for formula in claim.formulas.values() for reference in formula.references]


def test_verdicts_are_those_of_the_tables() -> None:
    given = json.loads((FOLDER / "80_claims" / "result.json").read_bytes())["parameters"]
    names = ("runs_dir", "kept_dir", "masks_dir", "more_masks_dir")
    runs, kept, *masks = (str(ROOT / "notebooks" / given[name]) if given[name] else "" for name in names)
    assert Path(runs).resolve() == RUNS
    measured = comparisons.measured_in(runs, masks, kept_dir=kept)
    asked = [claim for claim in ledger() if {ref.rpartition(":")[2] for ref in _references(claim)} & TRAINING_RESULTS]
    assert asked
    found = verdict_table(judge_study(asked, measure, measured, comparisons.orders_in(runs, kept))).set_index("id")[
        "verdict"
    ]
    shown = STUDY.table(schemas.CLAIMS).set_index("id")["verdict"]
    assert found.to_dict() == shown[found.index].to_dict()


def test_the_finding_on_masks_is_over_the_seeds_of_both_jobs() -> None:
    frames = [STUDY.table(schemas.INTERVENTIONS, job) for job in ("70_masks", "71_masks_more")]
    own = pd.concat(frames)
    is_asked = (own["module"] == "all") & (own["norms"] == "as they are") & ~own["network"].str.contains("naive")
    change = own[is_asked & (own["intervention"] == "another image's")].set_index("seed")["change"]
    reach = stats.t.ppf(0.975, len(change) - 1) * change.std() / len(change) ** 0.5
    interval = f"{change.mean() - reach:+.1f} to {change.mean() + reach:+.1f} points, {len(change)} seeds"
    assert len(change) == 6
    assert interval in masks.masks(STUDY).replaced[0].findings[0]


def test_the_report_is_that_of_the_tables() -> None:
    # The opening page alone: those of the notebooks show what is kept beside them.
    name, page = next(iter(build.pages(STUDY, block())))
    made, kept = (
        BeautifulSoup(text, "html.parser").get_text(" ", strip=True)
        for text in (page, (FOLDER / "report" / name).read_text(encoding="utf-8"))
    )
    assert name == "index.html"
    assert made == kept, "make it anew: resattn report results/reference"
    shown = sorted((FOLDER / "report" / "pages").glob("*.html"))
    assert len(shown) == sum(job.notebook is not None for job in JOBS)
    assert not [page.name for page in shown if "cannot be shown" in page.read_text(encoding="utf-8")]


def test_no_photo_is_kept() -> None:
    steps = ("50_train", "60_compare", "61_compare_short", "62_protocol")
    pages = [job.notebook for job in JOBS if job.step in steps and job.notebook]
    assert len(pages) == 6 * len(SHORT) + 3
    for page in pages:
        outputs = [o for cell in json.loads(page.read_bytes())["cells"] for o in cell.get("outputs", ())]
        assert not any(kind.startswith("image/") for o in outputs for kind in o.get("data", {})), page
        assert not any("<image" in str(o.get("data", {}).get("text/html", "")) for o in outputs), page
    assert not [file for file in FOLDER.rglob("*") if file.suffix in (".png", ".jpg", ".jpeg")]
    # One bit for each image: was it classified right?
    assert {file.name for file in FOLDER.rglob("*.bin")} <= {"correct.bin"}
    masks = json.loads((FOLDER / "70_masks" / "result.json").read_bytes())["parameters"]["runs_dir"]
    assert masks.endswith("65_train_digits")


def test_nothing_says_where_it_was_made() -> None:
    for file in FOLDER.rglob("*"):
        if (
            file.is_file()
            and file.suffix not in (".pt", ".bin")
            and not file.name.startswith(".")
            and file.name != "snakemake.log"
        ):
            found = re.search(r"/(?:tmp|home|root|work|Users)/\w+", file.read_text(encoding="utf-8"))
            assert found is None, f"{file}: {found}"
