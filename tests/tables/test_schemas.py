"""Every writer's frame has the columns and types that its schema states: renaming one at either fails here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from analysis.claims.ledger import ledger
from analysis.claims.printed import published_frame, source_frame
from analysis.claims.trained import judge_study, measured_runs, published_beside
from analysis.statistics.conclusions import comparison_frame, difference_frame, every_order
from analysis.tables import schemas, steps
from analysis.tables.cost import cost_frame, crosscheck_frame
from analysis.tables.depth import (
    article_steps,
    depth_frame,
    depth_ratios,
    module_frame,
    path_length_frame,
    path_summary,
    stage_frame,
    used_depth_frame,
)
from analysis.tables.files import check_frame
from analysis.tables.provenance import ROOT
from analysis.tables.quantities import quantity
from analysis.tables.receptive_field import gradient_frame, receptive_frame
from analysis.tables.runs import epoch_rows, run_frame, run_row
from analysis.tables.schemas import SCHEMAS, Schema
from analysis.tables.specs import spec_frame, summary_frame
from analysis.trained.experiment import experiment, replaced_masks, replaced_summary, sweep_frame
from resattn.claims.forms import verdict_table
from resattn.claims.measured import measure
from resattn.compare import layouts
from resattn.instruments.crosscheck import crosscheck
from resattn.networks.catalog import named
from resattn.training.run import read_runs

NETWORKS = ["cifar-attention56"]
KEPT = ROOT / "results" / "reference" / "50_train"  # records of runs that are kept in the repository


def _few_layouts() -> pd.DataFrame:
    every = layouts.layouts
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layouts, "layouts", lambda: islice(every(), 3))
        return pd.DataFrame(layouts.search({"cifar-attention92": (named("cifar-attention92"), "1.9")}))


def _claims() -> pd.DataFrame:
    few = [claim for claim in ledger() if claim.place == "Table 2" and claim.source == "wang2017"]
    return verdict_table(judge_study(few, measure, measured_runs()))


# What writes each table. Those of `ELSEWHERE` need a trained network or widgets: the tests of their writers check them
# in the same way.
WRITERS: Mapping[Schema, Callable[[], pd.DataFrame]] = {
    schemas.SPECS: lambda: spec_frame(NETWORKS),
    schemas.SUMMARY: lambda: summary_frame(NETWORKS),
    schemas.DEPTH: lambda: depth_frame(NETWORKS),
    schemas.STAGES: lambda: stage_frame(NETWORKS),
    schemas.MODULES: lambda: module_frame(NETWORKS),
    schemas.ARTICLE: lambda: article_steps(NETWORKS),
    schemas.RATIOS: lambda: depth_ratios("cifar-attention56", "cifar-resnet56"),
    schemas.PATH_LENGTHS: lambda: path_length_frame(NETWORKS),
    schemas.PATH_SUMMARY: lambda: path_summary(path_length_frame(NETWORKS), 10, 34),
    schemas.USED_UNTRAINED: lambda: used_depth_frame(["cifar-resnet11"]),
    schemas.COST: lambda: cost_frame(NETWORKS),
    schemas.CROSSCHECK: lambda: crosscheck_frame(crosscheck("cifar-resnet20-basic")),
    schemas.PUBLISHED: lambda: published_frame("wang2017", ["Table 2"]),
    schemas.RECEPTIVE_FIELD: lambda: receptive_frame(NETWORKS),
    schemas.GRADIENT: lambda: gradient_frame(["cifar-resnet20-basic"]),
    schemas.EPOCHS: lambda: epoch_rows(read_runs(KEPT)[0][1]),
    schemas.RUN: lambda: run_row(read_runs(KEPT)[0][1]),
    schemas.RUNS: lambda: run_frame(KEPT),
    schemas.COMPARISON: lambda: comparison_frame(run_frame(KEPT)),
    schemas.DIFFERENCES: lambda: difference_frame(run_frame(KEPT), "cifar-attention56"),
    schemas.PRINTED_BESIDE: lambda: published_beside(run_frame(KEPT), "wang2017", "Table 3"),
    schemas.SWEEP: lambda: sweep_frame(experiment()),
    schemas.REPLACED_MASKS: lambda: replaced_summary(replaced_masks()),
    schemas.MEASURED: lambda: measured_runs(run_frame(KEPT)),
    schemas.ORDERS: lambda: every_order(run_frame(KEPT)),
    schemas.CLAIMS: _claims,
    schemas.SOURCES: lambda: source_frame(["wang2017", "he2016", "wang2017"]),
    schemas.LAYOUTS: _few_layouts,
}
ELSEWHERE = {
    schemas.BUDGETS, schemas.EXPECTED, schemas.MASKS, schemas.CHANNELS, schemas.GAINS, schemas.INTERVENTIONS, schemas.INTERVENTION_MEANS,
    schemas.LESIONS, schemas.USED, schemas.USED_MEANS, schemas.RESPONSES, schemas.EFFECTIVE, schemas.STATE,
}  # fmt: skip


def test_every_table_has_a_writer_that_is_tested() -> None:
    assert set(SCHEMAS) == set(WRITERS) | ELSEWHERE
    assert not set(WRITERS) & ELSEWHERE


@pytest.mark.parametrize("schema", WRITERS, ids=lambda schema: f"{schema.notebook}-{schema.name}")
def test_a_frame_has_the_columns_and_types_of_its_schema(schema: Schema) -> None:
    frame = WRITERS[schema]()
    assert len(frame)
    check_frame(frame, schema)
    if schema != schemas.LAYOUTS:  # whose other columns are named after networks
        assert list(frame.columns) == schema.names


def test_every_table_of_a_notebook_has_a_schema() -> None:
    written = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        code = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
        written[path.stem] = sorted(re.findall(r"write_table\(.*?\"(\w+\.csv)\"", code))
    stated = {name: sorted(schema.file for schema in found) for name, found in schemas.by_notebook().items()}
    assert {name: files for name, files in written.items() if files} == stated  # 00_start writes none


def test_notebook_names_are_those_of_the_files() -> None:
    names = {value for name, value in vars(steps).items() if name.isupper() and isinstance(value, str)}
    assert names - {steps.TRAIN_DIGITS} == {path.stem for path in Path(ROOT, "notebooks").glob("*.ipynb")}
    assert set(steps.COMPLETE) < names


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: f"{schema.notebook}-{schema.name}")
def test_a_schema_says_what_it_holds(schema: Schema) -> None:
    assert schema.row
    assert len({column.name for column in schema.columns}) == len(schema.columns)
    for column in schema.columns:
        assert column.meaning, column.name
        if column.meaning == schemas.OF_QUANTITY:
            assert column.unit == quantity(column.name).unit, column.name
