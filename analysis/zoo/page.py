"""The page of the zoo for the docs, from its tables only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.tables.files import read_json, read_table, sidecar
from analysis.tables.formats import markdown_table
from analysis.zoo import tables

Rows = Sequence[Mapping[str, Any]]


def text(folder: Path) -> str:
    """Totals, incomplete and failed models, published numbers by cause, receptive fields, and names against counts."""
    models, judged, fields, named, totals = (
        read_table(folder / schema.file, schema).to_dict("records")
        for schema in (tables.ALL, tables.JUDGED, tables.FIELDS, tables.NAMED, tables.TOTALS)
    )
    about = read_json(sidecar(folder / tables.ALL.file))["provenance"]
    libraries = ", ".join(f"{name} {version}" for name, version in about["libraries"].items())
    n, run = sum(row["models"] for row in totals), sum(row["run"] for row in totals)
    out = [
        "# The audit of public models\n\n",
        "`make zoo` audits every model of the libraries below and compares multiply-adds and parameters with a count "
        "by torch (`FlopCounterMode`, and the parameters that operators take), with published tables, and receptive "
        "fields with gradients. It resumes; a model is measured again if our code or its library has changed. Tables: "
        f"[results/zoo](../../results/zoo). Measured: {run:,} of {n:,} models, with {libraries}.\n\n",
        "## Totals\n\n",
        _totals([*totals, _sum(totals)]),
        markdown_table(
            ("CPU seconds of the measured models", "constructors", "audits", "torch's counts"), _times(models)
        ),
        "## Complete, quantity by quantity\n\n",
        "Percent of the measured models. The others have a lower bound (partial), or are unavailable for the reason in "
        "the audit's notes, as receptive fields are if the input is not an image.\n\n",
        markdown_table(*_complete(models)),
        "## Different from torch's count\n\n",
        _counted("cause", (_cause(r["macs_verdict"]) for r in models), but=("equal", "")),
        "## Not complete\n\n",
        "Models whose costs, layers, depth or paths are not complete, or that were not audited.\n\n",
        markdown_table(("model", "reason"), [(_name(r), _reason(r)) for r in models if r["status"] != "complete"]),
        "## Published numbers\n\n",
        "Each published number for the same input size, against ours: multiply-adds, and all parameters of the model. "
        "Equal is within 0.5 %, or within the digits printed.\n\n",
        _counted("cause", (f"{r['family']} {r['quantity']}: {r['cause']}" for r in judged)),
        "## Receptive fields against gradients\n\n",
        "The receptive field of a network's last map in pixels, by the audit and by the support of the gradient of a "
        "linear twin (`resattn/instruments/gradient.py`).\n\n",
        markdown_table(("target", "module", "audit", "gradient", "verdict"), [_field(r) for r in fields]),
        "## Named N, counted M\n\n",
        "Networks with a depth in their name.\n\n",
        markdown_table(("model", "named", "longest path", "weighted layers"),
               [(_name(r), *(str(r[c]) for c in ("named", "longest_path", "weighted_layers"))) for r in named]),
    ]  # fmt: skip
    return "".join(out).rstrip() + "\n"


def _sum(totals: Rows) -> dict[str, Any]:
    added = {c: sum(row[c] for row in totals) for c in tables.TOTALS.names if c not in ("family", "median_audit_s")}
    return {"family": "all", **added, "median_audit_s": None}


def _times(models: Rows) -> list[tuple[str, ...]]:
    families = dict.fromkeys(row["family"] for row in models)

    def total(family: str, column: str) -> str:
        seconds = (row[column] for row in models if row["family"] == family)
        return f"{sum(s for s in seconds if s is not None and s == s):,.0f}"

    return [(family, *(total(family, name) for name in ("build_s", "audit_s", "torch_s"))) for family in families]


ASKED = ("macs", "params", "weighted_layers", "trunk_depth", "longest_path", "n_paths", "receptive_field_px",
         "receptive_field_narrowest_px")  # fmt: skip


def _totals(totals: Rows) -> str:
    """One row for each column of the table of totals, with its meaning; a column for each family."""
    rows = [
        (f"{column.meaning} (`{column.name}`)", *(_shown(row[column.name]) for row in totals))
        for column in tables.TOTALS.columns
        if column.name != "family"
    ]
    return markdown_table(("models", *(row["family"] for row in totals)), rows)


def _complete(models: Rows) -> tuple[list[str], list[tuple[str, ...]]]:
    """The share of each family's measured models for which each quantity is complete, as header and rows."""
    found = [("", "measured", *ASKED)]
    for family in dict.fromkeys(row["family"] for row in models):
        own = [row for row in models if row["family"] == family and row["outcome"] == "measured"]
        left = [{part.partition(":")[0] for part in str(row["incomplete"] or "").split()} for row in own]
        shares = (100 * sum(name not in names for names in left) / len(own) if own else 0.0 for name in ASKED)
        found.append((family, str(len(own)), *(f"{share:.1f}" for share in shares)))
    header, *rows = zip(*found, strict=True)
    return list(header), rows


def _cause(verdict: str) -> str:
    if "formula" not in verdict:
        return verdict
    return "; ".join(part.rpartition(": ")[0] or part for part in verdict.split("; "))


def _reason(row: Mapping[str, Any]) -> str:
    return row["message"] or " ".join(filter(None, (row["incomplete"], row["unknown_ops"])))


def _field(row: Mapping[str, Any]) -> tuple[str, ...]:
    shown = (row["target"], row["module"], *(_shown(row[c]) for c in ("field", "gradient")))
    return *shown, row["verdict"] if row["outcome"] == "measured" else row["message"]


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['family']}:{row['model']}"


def _shown(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, str):
        return value
    return f"{value:,.2f}" if isinstance(value, float) and value % 1 else f"{int(value):,}"


def _counted(header: str, values: Any, but: Sequence[str] = ()) -> str:
    counts = Counter(value for value in values if value not in but)
    return markdown_table((header, "number"), [(value, str(n)) for value, n in counts.most_common()])
