"""Small studies for the report's tests. Every number here is made up; only the shapes are those of real studies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
from made_up import row
from nbformat.v4.rwbase import split_lines

from analysis.report.reading import PLAN, STUDY
from analysis.study.dependencies import RESULT, VERSION
from analysis.study.job_folder import FAILURE, INPUTS, LOG, NOTEBOOK, SELF, write_result
from analysis.tables import schemas, steps
from analysis.tables.files import read_json, write_json, write_table
from analysis.tables.quantities import DEPTHS as NOTIONS
from analysis.tables.schemas import Schema

HOSTILE = '<script>alert("x")</script>'
DATASET = "made-up-digits (fixture)"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PROVENANCE = {
    "commit": COMMIT,
    "dirty": True,
    "versions": {"python": "3.11.0", "torch": "0.0.1"},
    "platform": "test",
    "cpu": "a made-up processor",
    "cpus": 2,
    "threads": 1,
    "device": "cpu",
    "start": "2020-01-01T00:00:00+00:00",
    "elapsed_s": 1.5,
}
DRAWING = """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="648pt" height="200pt"
 viewBox="0 0 648 200" role="img" aria-labelledby="t d"><title id="t">A made-up figure.</title>
<desc id="d">A made-up figure. It shows a line that rises from 1 to 3.</desc><style>*{stroke-linejoin:round}</style>
<defs><clipPath id="clip"><rect width="600" height="180"/></clipPath></defs>
<g clip-path="url(#clip)"><path id="line" d="M 10 190 L 600 20" style="fill:none;stroke:currentColor"/>
<use xlink:href="#line" y="5"/></g><text x="10" y="20" fill="currentColor">layers</text></svg>
"""

# network -> claimed, trunk, longest, all layers
DEPTHS = {"attention56": (56, 56, 80, 111), "resnet50": (50, 50, 50, 54), "resnet152": (152, 152, 152, 156)}
MODULES = {"stage1.module1": (26, 12, 6, 20), "stage2.module1": (20, 12, 6, 14), "stage3.module1": (14, 12, 6, 8)}
TRAINED = {"cifar-attention56": (56, 74), "cifar-resnet56": (56, 56), "cifar-resnet74": (74, 74)}

ANALYSES = tuple(step for step in steps.COMPLETE if step != steps.TRAIN)

Rows = list[dict[str, Any]]
Tables = Mapping[Schema, Rows]


def complete(folder: Path, *, seeds: int = 2) -> Path:
    """A study in which every job is done."""
    trainings = [f"50_train/{network}-s{seed}" for network in TRAINED for seed in range(seeds)]
    jobs = [*ANALYSES[:4], *trainings, *ANALYSES[4:]]
    write_json(folder / PLAN, {"version": 1, "jobs": {name: {"after": []} for name in jobs}})
    write_json(
        folder / STUDY,
        {"version": 1, "profile": "quick", "jobs": {name: {"state": "done", "message": None} for name in jobs}},
    )
    for name in jobs:
        done(folder, name, TABLES[name] if name in TABLES else training_tables(name))
    return folder


def done(folder: Path, name: str, tables: Tables) -> Path:
    """A finished job, with every table of its notebook, one figure and its executed notebook.

    Columns that a row lacks are made up; a table that is not given has no rows.
    """
    place, notebook = folder / name, steps.TRAIN if "train" in name else name.partition("/")[0]
    place.mkdir(parents=True, exist_ok=True)
    for schema in schemas.by_notebook()[notebook]:
        rows = [row(schema, **given) for given in tables.get(schema, [])]
        write_table(pd.DataFrame(rows, columns=schema.names), place / "tables" / schema.file, PROVENANCE, schema=schema)
    (place / "figures").mkdir(exist_ok=True)
    (place / "figures" / "made_up.svg").write_text(DRAWING)
    write_notebook(place)
    write_json(place / INPUTS, {})
    (place / LOG).write_text("printed on the way\n")
    record = {"version": VERSION, "notebook": f"{notebook}.ipynb", "parameters": parameters(name), "inputs": {}}
    write_result(place, {**record, "elapsed_s": 12.5, "provenance": PROVENANCE})
    return place


def list_again(place: Path) -> None:
    """Write the result of a job whose files a test has changed, as if its run had left them so."""
    result = read_json(place / RESULT)
    write_result(place, {name: result[name] for name in result.keys() - {"executed", "tables", "figures", "run", SELF}})


def failed(folder: Path, name: str, *, message: str = "cell 3 (`1 / 0`): ZeroDivisionError: division by zero") -> Path:
    """A job whose notebook stopped with an error: kept are the notebook, the log and the reason."""
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    error = {
        "output_type": "error",
        "ename": "ZeroDivisionError",
        "evalue": "division by zero",
        "traceback": ["\x1b[31mZeroDivisionError\x1b[0m: division by zero", HOSTILE],
    }
    write_notebook(place, code("1 / 0", [error]), note=f"This run failed:\n\n```\n{message}\n```")
    write_json(place / INPUTS, {})
    write_json(place / FAILURE, {"error": "CellFailedError", "message": message})
    (place / LOG).write_text(f"the last words of the kernel {HOSTILE}\n")
    return place


def parameters(name: str) -> dict[str, Any]:
    return {"seed": int(name.rpartition("-s")[2]), "dataset": "cifar10"} if name.startswith("50_train/") else {}


def write_notebook(place: Path, *cells: dict[str, Any], note: str = "") -> None:
    """An executed notebook with everything that a notebook may hold, hostile parts among it."""
    frame = (
        "<style>td {color: red}</style><table border='1'><thead><tr><th>network</th></tr></thead>"
        f"<tbody><tr><td>{escape(HOSTILE)}</td></tr></tbody></table>"
    )
    remote = (
        "<img src='https://example.org/pixel.png'><iframe src='https://example.org'></iframe>"
        "<a href='javascript:alert(1)'>a</a>"
    )
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": f"printed {HOSTILE}\n"},
        display({"text/html": frame, "text/plain": "frame"}),
        display({"text/html": remote}),
        display({"text/html": DRAWING.partition("?>\n")[2].partition("?>\n")[2] or DRAWING[DRAWING.index("<svg") :]}),
        display({"image/svg+xml": DRAWING}),
        display({"image/png": "iVBORw0KGgo="}),
        display({"application/javascript": "alert(1)"}),
    ]
    page: dict[str, Any] = {
        "cells": [
            {
                "cell_type": "markdown",
                "id": "m",
                "metadata": {},
                "source": f"# A made-up notebook\n\nIts *question* {HOSTILE}",
            },
            code("n = 3  # a comment", []),
            code("show(n)", outputs),
            *cells,
        ],
        "metadata": {"language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    if note:
        page["cells"].insert(0, {"cell_type": "markdown", "id": "failure", "metadata": {}, "source": note})
    # As papermill writes it: texts of several lines are lists.
    (place / NOTEBOOK).write_text(json.dumps(split_lines(nbformat.from_dict(page))))


def code(source: str, outputs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "id": f"c{abs(hash(source)) % 10**8}",
        "metadata": {},
        "execution_count": 1,
        "source": source,
        "outputs": outputs,
    }


def display(data: dict[str, str]) -> dict[str, Any]:
    return {"output_type": "display_data", "metadata": {}, "data": data}


def depth_rows() -> Rows:
    return [
        {"network": network, "quantity": notion, "value": value, "unit": "layers"}
        for network, values in DEPTHS.items()
        for notion, value in zip(NOTIONS, values, strict=True)
    ]


def module_rows() -> Rows:
    columns = ("longest_path", "trunk_path", "branch_path", "mask_path")
    return [{"network": "attention56", "module": m, **dict(zip(columns, v, strict=True))} for m, v in MODULES.items()]


def cost_rows() -> Rows:
    values = {  # network -> quantity -> trunk, mask, shortcut
        "attention56": {
            "params": (21_000_000, 7_000_000, 3_000_000),
            "macs": (4_000_000_000, 1_700_000_000, 300_000_000),
        },
        "resnet152": {"params": (57_000_000, 0, 3_000_000), "macs": (11_000_000_000, 0, 500_000_000)},
    }
    return [
        {"network": network, "role": role, "quantity": q, "value": value, "unit": ""}
        for network, quantities in values.items()
        for q, by_role in quantities.items()
        for role, value in zip(("trunk", "mask", "shortcut"), by_role, strict=True)
    ]


def field_rows() -> Rows:
    sides = {
        ("attention56", "mask"): (355, 707, 1155),
        ("attention56", "trunk"): (51, 123, 427),
        ("resnet152", "trunk"): (43, 400, 1451),
    }
    return [
        {"network": network, "stage": f"stage{k}", "branch": branch, "value": side, "unit": "px"}
        for (network, branch), by_stage in sides.items()
        for k, side in enumerate(by_stage, start=1)
    ]


def run_row(network: str, seed: int, **changes: Any) -> dict[str, Any]:
    trunk, longest = TRAINED[network]
    return {
        "network": network, "dataset": DATASET, "seed": seed, "epochs": 4, "images": 2000, "label_noise": 0.0,
        "test_error_pct": 30.0 + longest / 10 + seed, "params": 1_000_000 + longest, "macs": 100_000_000,
        "trunk_depth": trunk, "longest_path": longest, "weighted_layers": longest, **changes,
    }  # fmt: skip


def difference_row(network: str, **changes: Any) -> dict[str, Any]:
    return {
        "network": network, "reference": "cifar-attention56", "label_noise": 0.0, "n": 2, "mean": -1.25, "low": -2.0,
        "high": -0.5, "p_value": 0.03, "order": "lower", "conclusion": f"conclusion about {network}",
        "scope": "a made-up scope", **changes,
    }  # fmt: skip


def training_tables(name: str) -> Tables:
    network, _, seed = name.removeprefix("50_train/").rpartition("-s")
    return {schemas.RUN: [run_row(network, int(seed))]}


VERDICTS = ("confirmed", "built so", "other definition", "off", "not testable")


def claim_rows(n: int = 12) -> Rows:
    return [
        {
            "id": f"source{k % 3}.row.{k}",
            "source": f"source{k % 3}",
            "place": f"Table {k}",
            "quote": f"a made-up sentence {HOSTILE}",
            "subject": ("attention56", "resnet152 stride_on=1x1", "attention56 | resnet50", HOSTILE)[k % 4],
            "quantity": ("params", "depth", "= 3 * {attention56:params}", "cost")[k % 4],
            "definition": "counted",
            "printed": ("31.9 M", "56 layers", "6.2 G", "< 152")[k % 4],
            "measured": "" if k % 5 == 4 else "31.81 M",
            "verdict": VERDICTS[k % 5],
            "off_pct": "-2.2" if k % 5 == 3 else "",
            "reason": "needs ImageNet" if k % 5 == 4 else "",
            "why": "made up",
        }
        for k in range(n)
    ]


SOURCES = [
    {"source": "source0", "text": f"A made-up source {HOSTILE}.", "url": "https://example.org/source0"},
    {"source": "source1", "text": "Another.", "url": "javascript:alert(1)"}, {"source": "source2", "text": "A third.", "url": ""},
]  # fmt: skip
PUBLISHED = [
    {
        "id": "p.1", "place": "Table 2", "subject": "attention56", "quantity": "params", "printed": "31.9 M",
        "measured": "31.81 M", "verdict": "off",
    },
]  # fmt: skip
CROSSCHECK = [
    {
        "network": "attention56", "tool": "a tool", "quantity": "macs", "reported": 110, "ours": 100, "difference": 10,
        "explained_by": "batch norm: 10", "unexplained": 0,
    },
]  # fmt: skip
ARTICLE = [
    {"network": "attention56", "step": "mask of stage 1", "stated": 14, "counted": 20, "holds": False},
    {"network": "attention56", "step": "in total", "stated": 80, "counted": 80, "holds": True},
]


def mask_rows(network: str = "cifar-attention56") -> Rows:
    return [
        {
            "network": network,
            "dataset": DATASET,
            "seed": 0,
            "test_error_pct": 61.5,
            "state": state,
            "module": f"{stage}.module1",
            "stage": stage,
            "map": name,
            "quantity": quantity,
            "value": {"random": 0.5, "mask": 0.75 if state == "after" else 0.55}.get(name, 0.6),
        }
        for state in ("before", "after")
        for stage in ("stage1", "stage2", "stage3")
        for name in ("mask", "trunk", "output", "random")
        for quantity in ("auc", "energy_share", "contrast")
    ]


TABLES: Mapping[str, Tables] = {
    steps.VARIANTS: {schemas.SPECS: [{"network": "attention56", "field": "p", "value": "1"}]},
    steps.DEPTH: {schemas.DEPTH: depth_rows(), schemas.MODULES: module_rows(), schemas.ARTICLE: ARTICLE},
    steps.COST: {schemas.COST: cost_rows(), schemas.PUBLISHED: PUBLISHED, schemas.CROSSCHECK: CROSSCHECK},
    steps.RECEPTIVE_FIELD: {schemas.RECEPTIVE_FIELD: field_rows()},
    steps.COMPARE: {
        schemas.RUNS: [run_row(network, seed) for network in TRAINED for seed in range(2)],
        schemas.DIFFERENCES: [difference_row("cifar-resnet56"), difference_row("cifar-resnet74")],
    },
    steps.MASKS: {schemas.MASKS: mask_rows()},
    steps.CLAIMS: {schemas.CLAIMS: claim_rows(), schemas.SOURCES: SOURCES},
}
