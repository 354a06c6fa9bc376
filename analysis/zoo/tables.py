"""The tables of the zoo, made from its rows: every model, totals, verdicts on published numbers and fields, names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.tables.files import read_table, write_table
from analysis.tables.provenance import provenance, versions
from analysis.tables.schemas import Column, Schema
from analysis.zoo.engine import LIBRARIES, rows_in
from analysis.zoo.models import FAMILIES, GRADIENTS

Row = Mapping[str, Any]
MOST_OFF_PCT = 0.5  # of a published number, before a cause is looked for

FAMILY = Column("family", str, "library of models")
MODEL = Column("model", str, "its name in the library")
WEIGHTS = Column("model", str, "name with its weights")
QUANTITY = Column("quantity", str, "`macs` or `params`")
OUTCOME = Column("outcome", str, "`measured`, `unfinished` (a limit) or `failed`")
MESSAGE = Column("message", str, "why there is no number", may_be_empty=True)
DIGEST = Column("digest", str, "of the code and versions that made the row")


def _text(name: str, meaning: str) -> Column:
    return Column(name, str, meaning, may_be_empty=True)


def _number(name: str, meaning: str, unit: str, kind: type = int) -> Column:
    return Column(name, kind, meaning, unit, may_be_empty=True)


COUNTS = {
    "macs": "multiply-adds", "macs_constant": "multiply-adds", "macs_torch": "multiply-adds", "params": "parameters",
    "params_torch": "parameters", "numel": "parameters", "weighted_layers": "layers", "conv_layers": "layers",
    "longest_path": "layers", "shortest_path": "layers", "receptive_field_px": "px",
}  # fmt: skip
MEANINGS = {
    "macs_torch": "by torch's FlopCounterMode", "params_torch": "that any operator takes, by a dispatch mode",
    "numel": "of all parameters of the model",
}  # fmt: skip
ALL = Schema(
    "models",
    (
        FAMILY, MODEL, OUTCOME, _text("input", "shapes with their batch"), _text("device", "of the capture"),
        _text("status", "over costs, layers, depth and paths"),
        _text("incomplete", "quantities that are not complete"), _text("unknown_ops", "operators without a rule"),
        *(_number(name, MEANINGS.get(name, "the quantity of this name"), unit) for name, unit in COUNTS.items()),
        _text("n_paths", "an exact integer of any size"),
        _text("macs_verdict", "against torch: `equal`, the cause, `unexplained`, or why there is no count"),
        _text("params_verdict", "against torch and `numel`: `equal`, the cause, or `unexplained`"),
        _text("tree", "`exact`: parameters and multiply-adds of the modules sum to the totals; or by how much not"),
        _text("masks", "how masks were found"),
        *(_number(f"{what}_s", meaning, "s", float) for what, meaning in (
            ("build", "CPU time of the constructor"), ("audit", "CPU time of the audit"),
            ("torch", "CPU time of torch's count"))),
        MESSAGE, DIGEST,
    ),
    "one model",
)  # fmt: skip
PUBLISHED = Schema(
    "published",
    (FAMILY, WEIGHTS, _text("side", "of the input, in pixels"), QUANTITY, Column("value", str, "as printed"),
     Column("unit", str, "of the value"), Column("source", str, "where it is printed")),
    "one published number",
)  # fmt: skip
JUDGED = Schema(
    "judged",
    (FAMILY, WEIGHTS, QUANTITY,
     Column("published", float, "the published number", "1"), Column("counted", int, "our count", "1"),
     Column("off_pct", float, "of the published number from ours", "%"),
     Column("cause", str, "`equal` within 0.5 % or the printed digits, the cause, or `unexplained`")),
    "one published number of a measured model at the same input size",
)  # fmt: skip
FIELDS = Schema(
    "fields",
    (Column("target", str, "as on the command line"), OUTCOME, _text("module", "whose map it is"),
     _number("field", "by the audit", "px"), _number("gradient", "by the gradient's support", "px"),
     _number("n_positions", "positions tried whose support is not clipped", "1"),
     Column("verdict", str, "`equal`, `equal: the whole input`, `different`, or `none`: no twin"), MESSAGE, DIGEST),
    "one model",
)  # fmt: skip
NAMED = Schema(
    "named",
    (FAMILY, MODEL, Column("named", int, "the depth in the name", "layers"),
     Column("longest_path", int, "counted", "layers"), Column("weighted_layers", int, "counted", "layers")),
    "one model whose name gives its depth",
)  # fmt: skip
TOTALS = Schema(
    "totals",
    (FAMILY, *(Column(name, int, meaning, "models") for name, meaning in (
        ("models", "in the library as installed"), ("run", "with a row"), ("measured", "audited"),
        ("complete", "audit complete"), ("failed", "the constructor or the forward raised"),
        ("fails_alone", "of these, raised without the audit too"),
        ("unfinished", "exceeded a limit"), ("macs_equal", "multiply-adds equal to torch's"),
        ("macs_named", "different, with a known cause"), ("macs_unexplained", "different, without one"),
        ("macs_no_count", "no count by torch"),
        ("params_equal", "parameters equal, without those of unused results"),
        ("params_unexplained", "parameters different"), ("tree_exact", "modules sum to the totals"))),
     _number("median_audit_s", "median CPU seconds of an audit", "s", float)),
    "one library",
)  # fmt: skip


def published(folder: Path) -> dict[tuple[str, str], float]:
    """The published multiply-adds of each architecture, by family and name; the first one if there are several."""
    found: dict[tuple[str, str], float] = {}
    for row in read_table(folder / PUBLISHED.file, PUBLISHED).to_dict("records"):
        if row["quantity"] == "macs":
            found.setdefault((row["family"], architecture(row["model"])), float(row["value"]) * _unit(row["unit"]))
    return found


def architecture(model: str) -> str:
    """A published name without the name of its weights."""
    return model.partition(".")[0]


def _unit(unit: str) -> float:
    base, _, power = unit.partition("^")
    return float(base) ** int(power or 1)


def write_tables(folder: Path, rows: Path, models: Mapping[str, Sequence[str]]) -> list[Path]:
    """Every table of the folder, each with its sidecar. `models`: the names in each library as installed."""
    found = rows_in(rows)
    known = [r for (family, name), r in found.items() if name in models.get(family, ())]
    made = sorted((r for r in known if not FAMILIES[r["family"]].is_targets), key=lambda r: (r["family"], r["model"]))
    fields = [r for r in known if r["family"] == GRADIENTS]
    printed = read_table(folder / PUBLISHED.file, PUBLISHED).to_dict("records")
    judged = list(_judged(printed, {(r["family"], r["model"]): r for r in made if r["outcome"] == "measured"}))
    about = provenance(start=datetime.now(UTC), libraries=versions(LIBRARIES), note="times are of a shared machine")
    tables: Iterable[tuple[Schema, list[dict[str, Any]]]] = (
        (ALL, [_model(r) for r in made]),
        (JUDGED, judged),
        (FIELDS, [_field(r) for r in fields]),
        (NAMED, [*filter(None, map(_named, made))]),
        (TOTALS, [_total(family, names, made) for family, names in models.items() if family != GRADIENTS]),
    )
    return [
        write_table(frame(schema, records), folder / schema.file, about, schema=schema) for schema, records in tables
    ]


def frame(schema: Schema, records: Sequence[Row]) -> pd.DataFrame:
    """Records as a frame of the schema; whole numbers stay exact."""
    return pd.DataFrame({name: pd.Series([r.get(name) for r in records], dtype=object) for name in schema.names})


# -- against torch


def _model(row: Row) -> dict[str, Any]:
    paths = row.get("n_paths")
    return {
        **row,
        "incomplete": " ".join(f"{name}:{status}" for name, status in (row.get("incomplete") or {}).items()),
        "unknown_ops": " ".join(row.get("unknown_ops") or ()),
        "n_paths": "" if paths is None else str(paths) if paths < 10**30 else f"{float_of(paths)}",
        "macs_verdict": macs_verdict(row),
        "params_verdict": params_verdict(row),
        "tree": tree_verdict(row),
        "message": _message(row),
    }


def _message(row: Row) -> str | None:
    """Why there is no number, without the folder in which a library is installed."""
    packages = "|".join({family.package for family in FAMILIES.values()})
    return re.sub(rf"/\S*/(?=({packages})/)", "", row["message"]) if row.get("message") else None


def float_of(n: int) -> str:
    """An integer too long for a table, as its first digits and a power."""
    digits = str(n)
    return f"{digits[0]}.{digits[1:4]}e{len(digits) - 1}"


def macs_verdict(row: Row) -> str:
    """The verdict on our multiply-adds against torch's."""
    if row["outcome"] != "measured":
        return ""
    if "macs_torch" not in row:
        return f"no count: {row['torch_error']}"
    if row.get("macs") is None:
        return "partial"
    causes = row["macs_causes"]
    if "" in causes and any(note.startswith("the model changes between calls") for note in row.get("notes", ())):
        return "the model changes between calls"  # a length that it draws, say: the audit notes it, see `notes`
    return "unexplained" if "" in causes else "; ".join(f"{cause}: {n}" for cause, n in causes.items()) or "equal"


def params_verdict(row: Row) -> str:
    """The verdict on the parameters that the execution reads, against those any operator takes and all that exist."""
    if row["outcome"] != "measured":
        return ""
    if "params_torch" not in row:
        return f"no count: {row['torch_error']}"
    if row["params"] != row["params_torch"]:
        if row["params"] != row.get("params_met"):
            return "unexplained"
        return f"work on parameters alone that nothing reads takes {row['params_torch'] - row['params']}"
    unread = row["numel"] - row["params"]
    return f"no operator takes {unread}" if unread else "equal"


def tree_verdict(row: Row) -> str:
    """Whether the modules sum to the totals; "" if that was not measured."""
    if row.get("tree_off") is None:
        return ""
    return "; ".join(f"{number}: {n} more or less" for number, n in row["tree_off"].items()) or "exact"


def _total(family: str, names: Sequence[str], rows: Sequence[Row]) -> dict[str, Any]:
    own = [r for r in rows if r["family"] == family]
    macs, params = [macs_verdict(r) for r in own], [params_verdict(r) for r in own]
    times = sorted(r["audit_s"] for r in own if "audit_s" in r)

    def count(verdicts: Iterable[str], is_one: Callable[[str], bool]) -> int:
        return sum(map(is_one, filter(None, verdicts)))

    return {
        "family": family, "models": len(names), "run": len(own),
        **{outcome: sum(r["outcome"] == outcome for r in own) for outcome in ("measured", "failed", "unfinished")},
        "complete": sum(r.get("status") == "complete" for r in own),
        "fails_alone": sum(map(_fails_alone, own)),
        "macs_equal": count(macs, lambda v: v == "equal"),
        "macs_named": count(macs, lambda v: v.startswith(("torch has no formula", "the model changes"))),
        "macs_unexplained": count(macs, lambda v: v == "unexplained"),
        "macs_no_count": count(macs, lambda v: v.startswith("no count")),
        "params_equal": count(params, lambda v: v == "equal" or v.startswith(("no operator", "work on"))),
        "params_unexplained": count(params, lambda v: v == "unexplained"),
        "tree_exact": sum(tree_verdict(r) == "exact" for r in own),
        "median_audit_s": times[len(times) // 2] if times else None,
    }  # fmt: skip


def _fails_alone(row: Row) -> bool:
    """Whether the library's model raises with its default settings, for another reason than the limit on memory."""
    message = row.get("message", "")
    return message.startswith("ModelError") and "allocate memory" not in message


# -- against published numbers


def _judged(printed: Iterable[Row], rows: Mapping[tuple[str, str], Row]) -> Iterable[dict[str, Any]]:
    for number in printed:
        row = rows.get((number["family"], architecture(number["model"])))
        if row is None or not _is_same_input(number["side"], row["input"]):
            continue
        counted = row["numel"] if number["quantity"] == "params" else row.get("macs")
        if counted is None:
            continue
        value, unit = float(number["value"]), _unit(number["unit"])
        # Half of the last printed digit; 0.5 % where that is more.
        step = 0.5 * 10 ** -len(number["value"].partition(".")[2]) * unit
        yield {
            "family": number["family"], "model": number["model"], "quantity": number["quantity"],
            "published": value * unit, "counted": counted,
            "off_pct": round(100 * (value * unit / counted - 1), 3) if counted else 0.0,
            "cause": cause(number["quantity"], value * unit, step, counted, row),
        }  # fmt: skip


def _is_same_input(side: str, shape: str) -> bool:
    sides = shape.partition(" and ")[0].split("x")[-2:]
    return bool(side) and sides == (side.split("x") if "x" in side else [side, side])


def cause(quantity: str, value: float, step: float, counted: int, row: Row) -> str:
    """`equal`, or why a published number differs from ours by more than 0.5 % and more than its printed digits."""

    def is_equal(n: float | None) -> bool:
        return n is not None and abs(value - n) <= max(step, MOST_OFF_PCT / 100 * n)

    if is_equal(counted):
        return "equal"
    if quantity == "macs" and is_equal(row.get("fvcore")):
        return f"counted by fvcore: {_parts(row, counted)}"
    if quantity == "macs" and is_equal(counted + sum(n for _, n in _beside_products(row))):
        return f"counted by fvcore, attention as products: {_parts(row, 0)}"
    for pattern, of, more, why in MORE_PUBLISHED:
        if of == quantity and is_equal(counted + more) and re.fullmatch(pattern, f"{row['family']}:{row['model']}"):
            return why
    if (fused := row.get("fused")) and is_equal(fused.get(quantity)):
        return "branches fused before publishing"
    if quantity == "params" and is_equal(row.get("params")):
        return "parameters that the execution reads alone"
    return "unexplained"


# What a published number holds beyond the model that the library builds: names, quantity, how much, why.
AUXILIARY = "published with the auxiliary classifier, which is built with weights alone"
HEAD = 9 * 1024 * 256 + 256 * 21  # its convolutions
# Our counts of ecaresnext26t_32x4d (multiply-adds as fvcore counts them), whose published numbers are the same.
OTHER = "another architecture under the same name: with the layers of ecaresnext26t_32x4d"
MORE_PUBLISHED = (
    ("torchvision:(fcn|deeplabv3)_resnet(50|101)", "params", HEAD + 2 * 256 + 21, AUXILIARY),
    ("torchvision:(fcn|deeplabv3)_resnet(50|101)", "macs", HEAD * 65 * 65, AUXILIARY),
    ("timm:ecaresnext50t_32x4d", "params", 15_406_220 - 25_045_686, OTHER),
    ("timm:ecaresnext50t_32x4d", "macs", 2_699_054_592 - 4_438_597_376, OTHER),
)


def _beside_products(row: Row) -> list[tuple[str, int]]:
    return [(what, n) for what, n in row["fvcore_parts"].items() if what != PRODUCTS]


def _parts(row: Row, counted: int) -> str:
    named = [what for what, n in _beside_products(row) if n > 0.001 * row["macs"]]
    padded = row.get("padded_by_name", 0)
    is_fused = counted > row["fvcore_parts"].get(PRODUCTS, 0) + padded
    skipped = ["fused attention not counted"] if is_fused else []
    skipped += ["convolutions with padding by name not counted"] if padded and counted else []
    return "; ".join([*skipped, *(["with " + ", ".join(named)] if named else [])])


PRODUCTS = "convolutions and matrix products"


# -- fields and names


def _field(row: Row) -> dict[str, Any]:
    return {**row, "target": row["model"], "verdict": field_verdict(row), "message": _message(row)}


def field_verdict(row: Row) -> str:
    """The verdict on the field of a map by the audit, against that by gradients."""
    if row["outcome"] != "measured":
        return "none"
    if row["is_whole"] and row["gradient_is_whole"]:
        return "equal: the whole input"
    return "equal" if row["field"] is not None and row["field"] == row["gradient"] else "different"


# Names whose number is the depth by their papers; others give a width, a resolution or a version.
_NAME = re.compile(
    r"[a-z0-9_]*?(?:resnet|resnext|resnetv2|resnest|res2net|res2next|senet|densenet|vgg|dpn|darknet|vovnet|dla|drn[cd]|"
    r"xception|hardnet|wrn|pyramidnet|diracnet|sparsenet|airnet|airnext|bamnet|cbam_?net)(?:blur|aa|rs)?_?(\d+)"
)
# Networks around such a one, which give its depth and not their own.
_AROUND = re.compile("fcn|deeplab|rcnn|retina|pose|fpn|psp|detr|danet|icnet|centernet|lffd|unet|/")


def named_depth(model: str) -> int | None:
    """The depth in a name; None if it has none."""
    found = None if _AROUND.search(model) else _NAME.match(model)
    return int(found[1]) if found else None


def _named(row: Row) -> dict[str, Any] | None:
    depth = named_depth(row["model"])
    if depth is None or row["outcome"] != "measured" or row.get("longest_path") is None:
        return None
    return {name: row[name] for name in ("family", "model", "longest_path", "weighted_layers")} | {"named": depth}
