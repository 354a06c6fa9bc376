"""The pages of docs/ that are generated: `python -m analysis.docs docs` writes them, a test compares them.

The reference of the command line comes from its parser, that of the tables from the schemas, each drawing from a
captured network, and the page of results from the tables in the repository.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd

from analysis.explore.explorer import path_lengths
from analysis.figures import svg
from analysis.figures.depth import notion_sketch
from analysis.figures.network import network_sketch
from analysis.figures.path_lengths import path_sketch
from analysis.figures.style import INK
from analysis.report.facts.masks import Masks, masks
from analysis.report.facts.training import Difference, differences, pays, training
from analysis.report.reading import read_study
from analysis.statistics.comparisons import NEAR_CHANCE
from analysis.statistics.coverage import N_NETWORKS, coverages
from analysis.statistics.intervals import LEAST_BOOTSTRAP, least_seeds
from analysis.tables import schemas
from analysis.tables.files import write_atomic
from analysis.tables.formats import display_name, listed, markdown_table, part_name, signed
from analysis.tables.layers import layer_frame
from analysis.tables.provenance import ROOT, provenance
from analysis.tables.quantities import RUN_QUANTITIES
from analysis.tables.runs import budget
from analysis.tables.schemas import Column
from analysis.trained import comparisons
from analysis.zoo import page as zoo
from resattn.cli import parser
from resattn.instruments.counters import TOOLS
from resattn.measures.audit import audit
from resattn.measures.captured import captured
from resattn.measures.quantities import QUANTITIES, Quantity
from resattn.networks.catalog import named
from resattn.networks.spec import MASK_FIELDS, NetworkSpec
from resattn.targets import resolved

STUDIES, BOOTS = 20_000, 1_000  # of the table of coverages, for each row

MADE = "<!-- Written by `make docs` from the code. A change here is lost and fails a test. -->\n\n"

# One stage, one module, one pooling, units of two layers: small enough to draw every layer.
TINY = NetworkSpec(
    name="tiny", input_shape=(3, 32, 32), classes=10, stem="cifar", width=16, unit="basic", units=(0,), modules=(1,),
    tail=(0,), poolings=(1,),
)  # fmt: skip


def pages() -> dict[str, str]:
    """Every generated file of the docs: its path in the folder, and its text."""
    return {
        "reference/command-line.md": command_line(),
        "reference/tables.md": tables(),
        "reference/result.md": result(),
        "reference/counters.md": counters(),
        "reference/forecast.md": forecast(),
        "reference/statistics.md": statistics(),
        "reference/bench.md": bench(),
        "reference/zoo.md": MADE + zoo.text(ROOT / "results" / "zoo"),
        **{f"drawings/{name}.svg": svg.alone(drawing, INK) for name, drawing in drawings().items()},
    }


# -- speed


def bench() -> str:
    """The speed comparisons of `results/bench.json`."""
    found = json.loads((ROOT / "results" / "bench.json").read_text(encoding="utf-8"))
    text = [
        MADE,
        "# Speed\n\n`make bench` measures speed; this page shows its last kept run, `results/bench.json`. All times "
        "are processor time of one thread. A ratio is our time divided by the time of what we compare with. Both take "
        "turns in one process; given are the median over the turns and, in brackets, the smallest and the largest "
        "ratio.\n\n",
    ]
    ratios = ("audit/fvcore", "audit/FlopCounterMode", "audit/forward", "capture/floor")
    rows = [(name, row) for name, row in found.items() if "ratios" in row]
    text += [
        "| network | audit, ms | audit by name, ms | audit / fvcore | audit / FlopCounterMode on meta "
        "| audit / forward on meta | capture / its lower bound |\n|---|---|---|---|---|---|---|\n",
        *(
            f"| {name} | {row['ms']['audit']:,.0f} | {_named_ms(row)} | "
            f"{' | '.join(_spread(row['ratios'][r]) for r in ratios)} |\n"
            for name, row in rows
        ),
        "\nAn audit computes every quantity of a model that is built, as the other tools take it; an audit by name "
        "also builds the model. The lower bound of a capture is a pass that makes results on meta from known shapes "
        "and records nothing. The time of an audit grows with the number of operators:\n",
    ]
    if growth := found.get("growth"):
        text += [
            "\n| modules per stage | operators | audit, s | time per operator, relative to the first |\n"
            "|---|---|---|---|\n",
            *(f"| {r['modules']} | {r['n_ops']:,} | {r['s']:.2f} | {r['time_over_ops']:.2f} |\n" for r in growth),
        ]
    if first := found.get("first use"):
        text += [
            "\n## First use\n\nTime of importing torch and a first audit in a fresh process, relative to importing "
            "torch and building the model:\n\n",
            markdown_table(("network", "ratio"), [(name, _spread(ratio)) for name, ratio in first.items()]).rstrip("\n")
            + "\n",
        ]
    if jobs := found.get("jobs"):
        text += [
            "\nTime of the imports of a study's jobs, relative to importing torch:\n\n",
            markdown_table(("job", "ratio"), [(name, _spread(ratio)) for name, ratio in jobs.items()]).rstrip("\n")
            + "\n",
        ]
    if claims := found.get("claims"):
        cold, warm = claims["cold_s"], claims["warm_s"]
        text += [f"\n`resattn claims` takes {cold:.1f} s without cached counts and {warm:.1f} s with them.\n"]
    if training := found.get("training"):
        text += [
            f"\nThe training loop processes {100 * training['of_limit']:.1f} % of the images per second of a bare "
            f"forward pass, backward pass and step ({training['network']}).\n"
        ]
    return "".join(text) + _pages_speed()


def _pages_speed() -> str:
    """How fast the pages are in a browser, from the table that `tests/browser/speed.py` writes."""
    heads = ("what", "times", "processor, median ms", "processor, worst ms", "clock, median ms", "clock, worst ms")
    return (
        "\n## Pages\n\n`python -m tests.browser.speed results/reference/report` measures response times in headless "
        "Chromium, from the event, or from opening the file, until the frame is drawn. Processor time is that of the "
        "main thread; clock time includes waiting for other programs of a busy machine with two cores.\n\n"
        + markdown_table(heads, _rows(ROOT / "tests" / "browser" / "speed.csv")).rstrip("\n")
        + "\n"
    )


def _named_ms(row: Mapping[str, Any]) -> str:
    ms = row["ms"].get("audit by name")
    return "" if ms is None else f"{ms:,.0f}"


def _spread(ratio: Mapping[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['most']:.2f})"


# -- the command line


def command_line() -> str:
    """Every command with its arguments, in the order of `resattn --help`."""
    top = parser()
    text = [MADE, "# The command line\n\n", f"{top.description}\n\n"]
    text.append(
        "Data goes to stdout, messages to stderr. Exit status: 0 done, 1 failed, 2 usage error. A refuted claim is a "
        "result, not an error. An error is one line that names the cause and the remedy; "
        "`resattn --traceback COMMAND ...` shows where it arose.\n\n"
    )
    for words, sub in _commands(top):
        text += [f"## `resattn {words}`\n\n", f"{_sentence(sub.description or '')}\n\n", _arguments(sub)]
    return "".join(text).rstrip() + "\n"


def _commands(top: argparse.ArgumentParser, before: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help for choice in action._choices_actions}
            for name, sub in action.choices.items():
                sub.description = sub.description or helps.get(name)
                inner = list(_commands(sub, f"{before}{name} "))
                yield from inner or [(f"{before}{name}", sub)]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _arguments(sub: argparse.ArgumentParser) -> str:
    rows = []
    for action in sub._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        value = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
        if not action.option_strings:
            name = f"{value}..." if action.nargs == "+" else value
        else:
            name = ", ".join(action.option_strings)
            if action.nargs != 0:
                name += f" {value}" + (" ..." if action.nargs == "+" else "")
        rows.append((f"`{name}`", _what(action)))
    if not rows:
        return ""
    return markdown_table(("argument", "meaning"), rows)


def _what(action: argparse.Action) -> str:
    parts = [action.help or ""]
    if action.choices:
        parts.append("one of: " + ", ".join(f"`{choice}`" for choice in action.choices))
    if action.required and action.option_strings:
        parts.append("required")
    if action.default not in (None, False, [], "", 0, 0.0, argparse.SUPPRESS):
        parts.append(f"default: `{action.default}`")
    return "; ".join(filter(None, parts))


# -- the tables


def tables() -> str:
    """Every table with its columns, the quantities, the fields of a spec, and the fields of a sidecar."""
    text = [MADE, "# Tables and words\n\n"]
    text.append(
        "Every table is tidy CSV: keys first, then values and their unit. Beside `NAME.csv` stands "
        "`NAME.provenance.json`, which says where it came from.\n\n## Columns\n\n"
        "Of each notebook's tables. The writer refuses a frame with other columns or types, and the reader a table.\n\n"
    )
    for notebook, written in schemas.by_notebook().items():
        for schema in written:
            text.append(f"### `{notebook}`: `{schema.file}`\n\nOne row: {schema.row}.\n\n")
            text.append(
                markdown_table(("column", "type", "unit", "meaning"), [_column(column) for column in schema.columns])
            )
    text += [
        "## Quantities of a network\n\n",
        _quantities(QUANTITIES),
        "## Quantities of a training run\n\n",
        _quantities(RUN_QUANTITIES),
    ]
    text += [
        "## Fields of a spec\n\n",
        "Each can be given to `--set`. Those marked * have no meaning without a mask.\n\n",
    ]
    rows = []
    for f in fields(NetworkSpec):
        choices = f.metadata.get("choices")
        mark = "*" if f.name in MASK_FIELDS else ""
        rows.append((f"`{f.name}`{mark}", f.metadata["doc"], ", ".join(f"`{c}`" for c in choices) if choices else ""))
    text.append(markdown_table(("field", "meaning", "values (the first is the default)"), rows))
    text.append("## Beside every table\n\n")
    text.append(markdown_table(("key", "holds"), [(f"`{key}`", PROVENANCE[key]) for key in provenance()]))
    text.append("## `audit --json`\n\nA list with one object for each target.\n\n")
    schema = json.loads((ROOT / "resattn" / "measures" / "audit.schema.json").read_text(encoding="utf-8"))
    properties = schema["items"]["properties"]
    rows = [(f"`{key}`", _type(value), value.get("description", "")) for key, value in properties.items()]
    text.append(markdown_table(("key", "type", "meaning"), rows))
    return "".join(text).rstrip() + "\n"


PROVENANCE = {
    "commit": "the checkout's commit", "dirty": "whether files other than results differed from it",
    "versions": "of Python and of the packages that can change a number", "platform": "operating system and machine",
    "cpu": "model of the processor", "cpus": "processors that the process could use", "threads": "of torch",
    "device": "where it was computed", "start": "when the work began (UTC)", "elapsed_s": "seconds since then",
}  # fmt: skip


def _column(column: Column) -> tuple[str, str, str, str]:
    notes = ["may be empty"] * column.may_be_empty + ["absent from tables of earlier versions"] * column.may_lack
    return f"`{column.name}`", column.kind.__name__, column.unit, "; ".join([column.meaning, *notes])


def _quantities(rows: Mapping[str, Quantity]) -> str:
    return markdown_table(
        ("quantity", "unit", "definition"), [(f"`{q.id}`", q.unit, q.definition) for q in rows.values()]
    )


def _type(value: Mapping[str, Any]) -> str:
    kind = value.get("type") or value.get("enum") or "object"
    return " or ".join(map(str, kind)) if isinstance(kind, list) else str(kind)


# -- why another tool's number differs


PRINTED = ROOT / "tests" / "instruments" / "printed_by_tools.csv"
COMPARED = ("attention56", "resnet50", "resnet101", "cifar-resnet56")


def counters() -> str:
    """What other tools count, from the rules by which their numbers are computed here."""
    printed = Counter(row["tool"] for row in csv.DictReader(PRINTED.open(encoding="utf-8")))
    text = [MADE, "# Why your number differs\n\n"]
    text += [
        "Tools that count the cost of a model differ in what they see (modules or calls), in what they count, and in "
        "the unit. Print the tool, its version and its definition beside a number. `resattn audit TARGET "
        "--counted-like TOOL` and `Audit.counted_like` compute what a tool prints from the captured graph by tables "
        "that are printed below, with a sentence for a paper; the tool need not be installed.\n\n",
        "## The same network, counted by each\n\n",
    ]
    audits = [audit(name) for name in COMPARED]
    rows = [("`macs` of resattn", "multiply-adds", *(f"{a.quantities['macs']:,}" for a in audits))]
    for tool in TOOLS.values():
        rows.append(
            (f"{tool.name} {tool.version}", tool.unit, *(f"{a.counted_like(tool.name).value:,}" for a in audits))
        )
    text.append(markdown_table(("counted by", "unit", *COMPARED), rows))
    far = _rows(PRINTED.with_name("compared.csv"))
    header = (
        "tool",
        "printed numbers",
        "equal",
        "in the given range",
        "no number, with a reason",
        "different",
        "worst",
    )
    text += [
        "## How far these numbers are from what the tools print\n\n",
        "The tests compare each printed number with ours; `python -m tests.instruments.printed_by_tools --compared` "
        "makes this table again. A range is given where a graph does not tell how an operator is called.\n\n",
        markdown_table(header, [(*row[:-1], row[-1] or "none") for row in far]),
        f"Worst case: {', '.join(f'{row[0]} {row[-1]}' for row in far if row[-1])}; "
        f"{sum(int(row[2]) for row in far)} of {sum(int(row[1]) for row in far)} numbers are equal.\n\n",
        "## What each tool counts\n\n",
    ]
    for tool in TOOLS.values():
        text.append(f"### {tool.name} {tool.version}\n\nUnit: {tool.unit}. Counts {tool.definition}.\n\n")
        text.append(markdown_table(("counted", "how much"), [(count.what, count.per) for count in tool.counts]))
        text.append(f"Counts as nothing: {tool.unseen}.\n\n")
        if tool.assumes:
            text.append(f"Computed here on the assumption: {tool.assumes}.\n\n")
        if tool.doubts:
            text.append(f"A graph does not tell whether {'; or whether '.join(tool.doubts)}: what that adds is given "
                        "beside the number.\n\n")  # fmt: skip
        why: dict[str, list[str]] = {}
        for kind, reason in tool.hard.items():
            why.setdefault(reason, []).append(kind if isinstance(kind, str) else kind.__name__)
        for reason, kinds in why.items():
            text.append(f"No number for a model with {', '.join(kinds)}: each {reason}.\n\n")
        text.append(f"The tests compare {printed[tool.name]} numbers that this tool printed.\n\n")
    return "".join(text).rstrip() + "\n"


# -- cost before it is paid

FORECASTS = ROOT / "tests" / "forecast"


def forecast() -> str:
    """Forecasts of cost, memory and tiles beside measured values, from the tables that the tests keep."""
    scaled, trained, tiled, cuda = (
        _rows(FORECASTS / f"{name}.csv") for name in ("scaling", "training", "tiling", "cuda")
    )
    text = [MADE, "# Forecasts against what happens\n\n"]
    text += [
        "`python -m tests.forecast.measured` makes the tables again.\n\n## Cost as a formula\n\n",
        "`Audit.scaling()` gives multiply-adds and activations as sums of products of the input's sizes. At random "
        "sizes each formula is compared with a fresh capture; a size that breaks a condition is refused.\n\n",
        markdown_table(("network", "terms", "conditions", "sizes", "reached", "refused", "largest difference"), scaled),
        f"Worst case: {max(int(row[-1]) for row in scaled):,} multiply-adds or activations off, at "
        f"{sum(int(row[4]) for row in scaled):,} sizes that were reached, of "
        f"{sum(int(row[3]) for row in scaled):,}.\n\n",
        "## A step of training\n\n",
        f"`Audit.training()`, batch {trained[0][1]}, SGD with momentum. Multiply-adds of the backward pass beside "
        "torch's FlopCounterMode; the named difference is that of gradients of grouped kernels, which it counts "
        "as if they had one group. Peak memory beside that of CUDA's allocator "
        "(bytes requested; torch 2.11, one H200).\n\n",
    ]
    peaks = {row[0]: int(row[1]) for row in cuda}
    rows, off, unexplained = [], {}, []
    for name, _, forward, backward, counter, named_difference, kept, peak in trained:
        off[name] = 100 * (int(peak) / peaks[name] - 1)
        unexplained.append(int(counter) - int(backward) - int(named_difference))
        numbers = (f"{int(n):,}" for n in (forward, backward, named_difference))
        rows.append((name, *numbers, f"{unexplained[-1]:,}", f"{int(kept):,}", f"{int(peak):,}", f"{peaks[name]:,}",
                     f"{off[name]:+.1f} %"))  # fmt: skip
    header = ("network", "forward", "backward", "named difference", "unexplained", "kept bytes", "peak bytes",
              "peak on CUDA", "difference")  # fmt: skip
    text.append(markdown_table(header, rows))
    worst = max(off, key=lambda name: abs(off[name]))
    text.append(
        f"Worst case: {max(map(abs, unexplained)):,} multiply-adds unexplained; peak memory {off[worst]:+.1f} % "
        f"({worst}). CUDA needs more where its convolutions use working memory, and less where a fused "
        "kernel of attention keeps no scores. "
        "On the CPU the tracker's peak is that on meta to the byte, which a test asserts.\n\n"
    )
    text += [
        "## Tiles\n\n",
        "Each network runs on the smallest valid tiles, and the stitched result is compared with that of the whole "
        "image, in float64.\n\n",
        markdown_table(
            ("network", "image", "stride", "halo before, after", "valid lengths", "tiles", "relative difference"),
            [(*row[:-1], f"{float(row[-1]):.1e}") for row in tiled],
        ),
        f"Worst case: a relative difference of {max(float(row[-1]) for row in tiled):.1e} on {len(tiled)} networks.\n",
    ]
    return "".join(text)


def _rows(file: Path) -> list[tuple[str, ...]]:
    return [tuple(row) for row in csv.reader(file.open(encoding="utf-8"))][1:]


# -- the result in the repository

REFERENCE = ROOT / "results" / "reference"


def result() -> str:
    """Results of the runs in the repository: errors, differences between networks, and where masks are high."""
    study = read_study(REFERENCE)
    runs = study.table(schemas.RUNS)
    beside = study.table(schemas.PRINTED_BESIDE)
    tested, scored = differences(study), masks(study)
    subject = display_name(tested[0].reference)
    text = [MADE, "# Does the mask pay for its depth?\n\n"]
    text += [
        f"{budget(runs)}. {pays(training(study), tested)} {comparisons.cost_words(runs)}\n\n",
        "This does not repeat the paper's experiment; no run here has its recipe:\n\n",
        *(f"- {display_name(str(row.network))}: {row.difference}.\n" for row in beside.itertuples()),
        "\n",
        _errors(runs, study.table(schemas.COMPARISON)),
        f"Mean test error of {subject} minus that of each other network, in percentage points; below zero "
        f"{subject} has the lower error. Intervals and p-values are corrected for all comparisons together: "
        "[the rule](statistics.md).\n\n",
        _differences(tested),
    ]
    text += [
        "## Where the masks look\n\n",
        "Area under the ROC curve of a map against the true foreground. 1: every pixel of the object is higher than "
        f"every other pixel; 0.5: no order; 0: the reverse. Data: {listed(scored.datasets)}; mean of {scored.n_seeds} "
        "seeds. The maps of the trunk and of the module's output are mean magnitudes over channels.\n\n",
        _mask_scores(scored),
        "Every run, figure and verdict is in [the report](../../results/reference/report/index.html). This command "
        "makes it from its tables:\n\n```sh\nresattn report results/reference\n```\n",
    ]
    return "".join(text)


def _errors(runs: pd.DataFrame, comparison: pd.DataFrame) -> str:
    sizes = runs.groupby("network")[["trunk_depth", "longest_path", "params", "macs"]].first()
    rows = [
        (
            display_name(str(row.network)),
            *(f"{size:,}" for size in sizes.loc[str(row.network)]),
            f"{row.mean:.2f}",
            _between(row.low, row.high),
            _between(row.least, row.largest),
        )
        for row in comparison[comparison["quantity"] == "test_error_pct"].itertuples()
    ]
    header = ("network", "trunk depth", "longest path", "parameters", "multiply-adds", "test error (%)",
              "95 % interval", "range")  # fmt: skip
    return markdown_table(header, rows)


def _differences(tested: Sequence[Difference]) -> str:
    rows = [
        (
            display_name(row.network),
            "\N{EN DASH}" if row.mean is None else signed(row.mean),
            _between(row.low, row.high),
            f"{row.p_value:.2g}" if row.p_value is not None else "\N{EN DASH}",
        )
        for row in tested
    ]
    return markdown_table(("minus", "difference", "95 % simultaneous interval", "adjusted p"), rows)


def _mask_scores(masks: Masks) -> str:
    rows = [
        (display_name(score.network), score.map, score.state, *(f"{score.by_stage[s]:.2f}" for s in masks.stages))
        for score in masks.scores
        if score.state == "after" or score.map == "mask"
    ]
    return markdown_table(("network", "map", "training", *map(part_name, masks.stages)), rows)


def _between(low: float | None, high: float | None) -> str:
    return "\N{EN DASH}" if low is None or high is None or low != low else f"{low:.2f} to {high:.2f}"


# -- the rule for every order


def statistics() -> str:
    """The rule in words, and how often its intervals contain the true value."""
    seeds = [f"{least_seeds(k)} for {words}" for k, words in ((1, "1 comparison"), (3, "2 or 3"), (6, "4 to 6"))]
    text = [MADE, "# When an order of networks is claimed\n\n"]
    text += [
        "An order is a statement that one network has a lower test error than another. One function decides it for "
        "the notebooks, the report, [the result](result.md) and the ledger:\n"
        "`analysis.statistics.comparisons.compare_networks`.\n\n",
        "- **What is compared**: all networks that were trained on the same data with the same budget, by the seeds\n"
        "  that all of them share; other seeds are left out and listed. Learning rate, drops, momentum and decay may\n"
        "  differ.\n",
        "- **Model**: test error ~ network + seed, two-way and additive. With k networks and n seeds its residual has\n"
        "  (k-1)(n-1) degrees of freedom.\n",
        "- **Intervals and p-values**: simultaneous for k-1 comparisons, by Dunnett's two-sided distribution\n"
        "  (correlation 1/2) on that residual. The correction does not depend on which network is the reference, so a\n"
        "  pair of networks has the same p-value wherever it is shown. Two networks differ where the 95 % interval\n"
        "  does not contain 0.\n",
        f"- **Seeds**: at least {', '.join(seeds)}.\n"
        "  With so many seeds, differences that all have one sign are also significant by the exact sign test, "
        "corrected for all comparisons. With fewer seeds there is a dash instead of an interval, and no order.\n",
        f"- **Chance level**: a network whose mean error is above {100 * NEAR_CHANCE:.0f} % of the chance level\n"
        "  (67.5 % with ten classes) is near chance level; no order of it is claimed.\n",
        f"- **A single mean** has a t interval from {least_seeds()} runs on, and a BCa bootstrap interval from\n"
        f"  {LEAST_BOOTSTRAP} runs on.\n",
        "- **Equivalence** within a margin: two one-sided tests at 5 %, that is, the 90 % t interval of the paired\n"
        "  differences lies within the margin. It is not corrected for other pairs.\n",
        "- **Scope**: all runs use the same test images, and often the same subset of the training images. The effect "
        "of other images is not part of any interval.\n\n",
        "## Coverage\n\n",
        f"Share of 95 % intervals that contain the true value, in {STUDIES:,} simulated studies for each row "
        f"({BOOTS:,} for the bootstrap, which is slower), for three distributions of errors. *Difference*: of two "
        "networks only;\n"
        f"*simultaneous*: all {N_NETWORKS - 1} comparisons of {N_NETWORKS} networks. The t interval of one skewed\n"
        "mean contains it in less than 95 %; that of a difference does not, because the skew cancels. The bootstrap\n"
        "interval is too narrow with few runs.\n\n",
    ]
    rows = [
        (
            c.distribution,
            str(c.n_seeds),
            *(f"{v:.3f}" for v in (c.difference, c.simultaneous, c.mean, c.bootstrap or 0)),
        )
        for c in coverages(studies=STUDIES, boots=BOOTS)
    ]
    header = ("errors", "seeds", "difference", "simultaneous", "single mean, t", "single mean, BCa")
    return "".join([*text, markdown_table(header, rows)]).rstrip() + "\n"


# -- the drawings


def drawings() -> dict[str, str]:
    """Name to drawing: the network of the README, and one for each notion of depth."""
    layers = layer_frame(TINY)
    tiny = captured(TINY)
    assert tiny.shortest is not None
    every = frozenset(layers["layer"])
    on = {name: frozenset(layers.loc[layers[name], "layer"]) for name in ("on_trunk", "on_longest")}
    short = frozenset(tiny.graph.ops[i].module for i in tiny.shortest.ops if tiny.is_layer[i])
    counts = audit(TINY).quantities
    return {
        "attention56": network_sketch(layer_frame("attention56")),
        "terminal": terminal(),
        "trunk_depth": notion_sketch(layers, on["on_trunk"], f"Trunk depth: {counts['trunk_depth']}"),
        "longest_path": notion_sketch(layers, on["on_longest"], f"Longest path: {counts['longest_path']}"),
        "shortest_path": notion_sketch(layers, short, f"Shortest path: {counts['shortest_path']}"),
        "weighted_layers": notion_sketch(layers, every, f"Weighted layers: {counts['weighted_layers']}"),
        "mean_path_length": path_sketch([path_lengths(named(n)) for n in ("attention56", "resnet50")]),
    }


HOW_TO = ROOT / "docs" / "how-to" / "audit-your-model.md"
TERMINAL = {"step": 7.3, "line": 18.0, "margin": 16.0}  # px of a character, of a line, around the text


def terminal() -> str:
    """A picture of a terminal with the output of `print(audit(...))` for the model of the how-to page."""
    code = re.search(r"```python\n# mymodels\.py\n(.*?)```", HOW_TO.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, {"COLUMNS": "88"}):
        path = Path(folder, "mymodels.py")
        path.write_text(code[1], encoding="utf-8")
        with resolved(f"{path}:build", ((3, 32, 32),)) as found:
            lines = str(audit(found.make("cpu"), (3, 32, 32))).splitlines()
    step, height, margin = TERMINAL.values()
    width = max(map(len, lines)) * step + 2 * margin
    parts = [svg.rect(0, 0, width, len(lines) * height + 2 * margin, fill="#111111", rx=6)]
    for k, words in enumerate(lines):
        # Every word in its column, whatever font is there.
        for word in re.finditer(r"\S+(?: \S+)*", words):
            x, y = margin + word.start() * step, margin + (k + 0.75) * height
            length = f"{len(word[0]) * step:.1f}"
            parts.append(
                svg.text(x, y, word[0], font_family="monospace", fill="#fdfdfd", textLength=length,
                         lengthAdjust="spacingAndGlyphs")
            )  # fmt: skip
    label = "The audit of a model: " + "; ".join(" ".join(line.split()) for line in lines[:2])
    return svg.drawing(len(lines) * height + 2 * margin, parts, label, width=width)


def write(folder: Path) -> list[Path]:
    """Writes every generated page that changed into a folder."""
    changed = []
    for name, text in pages().items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            changed.append(write_atomic(path, text))
    return changed


if __name__ == "__main__":
    for path in write(Path(sys.argv[1])):
        print(path)
