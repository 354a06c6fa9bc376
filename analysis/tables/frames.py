"""From specs, audits, verdicts and training runs to the tidy frames that notebooks write and plot."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import log2
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from analysis.statistics.stats import compare, mean_interval
from analysis.tables.files import TableError, read_table
from analysis.tables.names import name_and_settings, part_name
from analysis.tables.provenance import provenance
from resattn.graph.graph import Graph
from resattn.instruments.gradient import gradient_support
from resattn.measures import cost, depth, receptive, roles
from resattn.measures.audit import cached_audit, captured, measure_table, unclipped
from resattn.measures.paths import mean_length
from resattn.measures.quantities import QUANTITIES, Quantity
from resattn.networks.catalog import named
from resattn.networks.network import Network
from resattn.networks.spec import NetworkSpec
from resattn.rules.intervals import Extent
from resattn.rules.table import layer_flags
from resattn.training.config import SIDE

if TYPE_CHECKING:
    from resattn.instruments.crosscheck import Check
    from resattn.training.loop import Run

# Answers to "how deep is it?": what the name says, what it counts, the longest way through, everything there is.
DEPTHS = ("claimed_depth", "trunk_depth", "longest_path", "weighted_layers")
COSTS = ("params", "macs", "flops")

# What a training run adds to the quantities of a network.
RUN_QUANTITIES: Mapping[str, Quantity] = {
    q.id: q
    for q in (
        Quantity("test_error_pct", "%", "Test error", "wrong predictions on the test images after the last epoch"),
        Quantity(
            "train_error_pct", "%", "Training error", "wrong predictions on the augmented images of the last epoch"
        ),
        Quantity("elapsed_s", "s", "Training time", "wall clock of the epochs of one run, evaluation included"),
        Quantity("images_per_s", "images/s", "Training speed", "training images over the time of the training steps"),
        Quantity("s_per_epoch", "s", "Time of an epoch", "wall clock of an epoch, evaluation included"),
        Quantity("peak_memory_bytes", "bytes", "Peak memory", "of the accelerator; on a processor that of the process"),
        Quantity(
            "training_macs",
            "multiply-adds",
            "Training cost",
            "multiply-adds of an image, times the images of all epochs, times 3 for the forward and the backward pass",
        ),
    )
}


class FrameError(ValueError):
    """There is nothing to make a frame of; the message says what was looked for and where."""


def quantity(id: str) -> Quantity:
    """The quantity of a network or of a run. Raises: KeyError."""
    return RUN_QUANTITIES[id] if id in RUN_QUANTITIES else QUANTITIES[id]


def about(networks: Iterable[str], **extra: Any) -> dict[str, Any]:
    """The provenance of a table about some networks: the circumstances, and the digest of each network's spec."""
    return provenance(specs={name: named(name).digest for name in networks}, **extra)


def shown(frame: pd.DataFrame, formats: Mapping[str, str] | None = None, *, index: bool = False) -> Styler:
    """The frame as a notebook shows it: words to the left, digits grouped; the same frame gives the same markup."""
    uuid = f"{zlib.crc32(frame.to_csv().encode()):08x}"
    styler = Styler(frame, uuid=uuid, precision=2, thousands=",", na_rep="")
    words = [c for c in frame.columns if not pd.api.types.is_numeric_dtype(frame[c]) and not is_whole(frame[c])]
    styler = styler.set_properties(subset=words, **{"text-align": "left"})
    left = [{"selector": f"th.col{frame.columns.get_loc(c)}", "props": "text-align: left"} for c in words]
    styler = styler.set_table_styles(left)
    if formats:
        styler = styler.format(formats, subset=list(formats), na_rep="")
    return styler if index else styler.hide(axis="index")


def is_whole(column: pd.Series) -> bool:
    """Does a column of objects hold integers, which pandas keeps as objects where they may be large?"""
    return bool(len(column)) and all(isinstance(value, int) for value in column)


def with_masks(networks: Iterable[str]) -> list[str]:
    """Those of the networks that have attention modules."""
    return [name for name in networks if named(name).has_masks]


def by_input_side(networks: Iterable[str]) -> dict[int, list[str]]:
    """The networks by the side of their input in pixels: what stands on one axis should be of one kind."""
    groups: dict[int, list[str]] = {}
    for name in networks:
        groups.setdefault(input_side(name), []).append(name)
    return groups


# -- what a network is


def spec_frame(networks: Iterable[str]) -> pd.DataFrame:
    """Columns network, field, value: every field of every spec, the value as text."""
    rows = [
        {"network": name, "field": field, "value": _text(value)}
        for name in networks
        for field, value in named(name).to_json().items()
        if field != "name"
    ]
    return pd.DataFrame(rows, columns=["network", "field", "value"])


def differing(specs: pd.DataFrame) -> pd.DataFrame:
    """A frame of specs side by side: one row for each network, one column for each field in which they differ."""
    wide = specs.pivot(index="network", columns="field", values="value")
    wide = wide.loc[specs["network"].unique(), specs["field"].unique()]
    return wide.loc[:, wide.nunique() > 1].rename_axis(index=None, columns=None)


def summary_frame(networks: Iterable[str]) -> pd.DataFrame:
    """Columns network, layers, params, params_torchinfo, macs, macs_torchinfo: our totals beside torchinfo's.

    `macs_torchinfo` counts norms and biases too; `resattn.instruments.crosscheck` takes that difference apart.
    """
    import torchinfo

    rows = []
    for name in networks:
        spec, quantities = named(name), cached_audit(name).quantities
        network, _ = captured(spec)
        theirs = torchinfo.summary(network, (1, *spec.input_shape), device="meta", verbose=0)
        rows.append(
            {
                "network": name, "layers": quantities["weighted_layers"], "params": quantities["params"],
                "params_torchinfo": int(theirs.total_params), "macs": quantities["macs"],
                "macs_torchinfo": int(theirs.total_mult_adds),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def layer_frame(network: str | NetworkSpec) -> pd.DataFrame:
    """One row for each weighted layer that is executed, in order of execution.

    Columns: network, layer (module path), role, stage ("stem", "stage1", ..., "head"), module (of the attention
    module that holds it, else empty), level (how often the map was halved since the module's input), start (most
    layers on a path ahead of it), size_px (side of its map), macs, on_longest and on_trunk (is it on the longest
    path of the network; of the network without its masks).
    """
    spec = named(network) if isinstance(network, str) else network
    _, graph = captured(spec)
    is_layer = layer_flags(graph)
    role = roles.roles(graph, is_layer)
    macs = cost.op_macs(graph)
    longest = depth.longest_path(graph, is_layer)
    trunk = depth.longest_path(graph.without(role.ops(roles.MASK)), is_layer)
    start = _layers_ahead(graph, is_layer)
    on_longest, on_trunk = (set(path.ops) if path else set() for path in (longest, trunk))
    rows: list[dict[str, Any]] = []
    for op in graph.ops:
        if not is_layer[op.index]:
            continue
        rows.append(
            {
                "network": spec.name,
                "layer": op.module,
                "role": role.of[op.index],
                "stage": op.module.split(".", 1)[0],
                "module": _attention_module(op.module),
                "size_px": op.shape[-1] if len(op.shape) > 2 else 1,
                "start": start[op.index],
                "macs": macs[op.index],
                "on_longest": op.index in on_longest,
                "on_trunk": op.index in on_trunk,
            }
        )
    # The mask's last layers stand at the size of the module's input, whatever stride its first unit has.
    full = {row["module"]: row["size_px"] for row in rows if row["role"] == roles.MASK}
    for row in rows:
        is_mask = row["role"] == roles.MASK
        row["level"] = round(log2(full[row["module"]] / row["size_px"])) if is_mask else 0
    return pd.DataFrame(rows)


def _attention_module(path: str) -> str:
    parts = path.split(".")
    return next((".".join(parts[: i + 1]) for i, part in enumerate(parts) if part.startswith("module")), "")


def _layers_ahead(graph: Graph, is_layer: Sequence[bool]) -> list[int]:
    """For each operator the most weighted layers on any path that ends just before it."""
    after: list[int] = []
    ahead: list[int] = []
    for op in graph.ops:
        ahead.append(max((after[i] for i in op.inputs), default=0))
        after.append(ahead[-1] + is_layer[op.index])
    return ahead


# -- depth


def depth_frame(networks: Iterable[str]) -> pd.DataFrame:
    """Columns network, quantity, value, unit: each notion of depth of each network."""
    return measure_table(networks, DEPTHS).rename(columns={"target": "network"})


def depth_by_role(networks: Iterable[str]) -> pd.DataFrame:
    """Columns network, notion, role, value: the layers on the longest path, and all of them, by role.

    A row of notion "claimed_depth" has the number in the name, and no role.
    """
    rows: list[dict[str, Any]] = []
    for name in networks:
        layers = layer_frame(name)
        rows.append({"network": name, "notion": "claimed_depth", "role": "", "value": named(name).claimed_depth})
        for notion, part in (("longest_path", layers[layers["on_longest"]]), ("weighted_layers", layers)):
            counts = part["role"].value_counts()
            rows += [
                {"network": name, "notion": notion, "role": r, "value": int(counts.get(r, 0))} for r in roles.ROLES
            ]
    return pd.DataFrame(rows)


def stage_frame(networks: Iterable[str]) -> pd.DataFrame:
    """Columns network, stage, notion, role, value: the layers that each stage adds to each notion of depth, by role."""
    rows = []
    for name in networks:
        layers = layer_frame(name)
        everything = pd.Series(True, index=layers.index)
        for notion, chosen in zip(DEPTHS[1:], (layers["on_trunk"], layers["on_longest"], everything), strict=True):
            counts = layers[chosen].groupby(["stage", "role"]).size()
            rows += [
                {"network": name, "stage": stage, "notion": notion, "role": r, "value": int(counts.get((stage, r), 0))}
                for stage in layers["stage"].unique()
                for r in roles.ROLES
            ]
    return pd.DataFrame(rows)


@functools.lru_cache(maxsize=64)
def _rule(spec: NetworkSpec) -> Mapping[str, int]:
    """What the article's arithmetic gives for a network with the numbers of a spec.

    "4 residual units" is its reading of figure 2 of the paper at r=1: r units after each of two poolings, and
    again r after each of two interpolations, in every module. Source: article2021, claims 1 to 3.
    """
    convolutions = 3  # in a bottleneck
    outside, modules = sum(spec.units) + sum(spec.tail), sum(spec.modules)
    mask = 4 * spec.r * convolutions + 2
    trunk = (spec.p + spec.t + spec.p) * convolutions
    module = mask + 2 * spec.p * convolutions
    ends = 2  # the first convolution and the classifier
    return {
        "outside": outside * convolutions, "modules": modules * trunk, "ends": ends,
        "named": outside * convolutions + modules * trunk + ends, "mask": mask, "module": module, "trunk": trunk,
        "depth": modules * module + outside * convolutions + ends,
    }  # fmt: skip


def module_frame(networks: Iterable[str]) -> pd.DataFrame:
    """Columns network, module, longest_path, trunk_path, branch_path, mask_path, mask_layers, trunk_layers, said.

    One row for each attention module; `said` is the depth that the article gives to every module.
    """
    columns = [
        "network", "module", "longest_path", "trunk_path", "branch_path", "mask_path", "mask_layers", "trunk_layers",
        "said",
    ]  # fmt: skip
    rows = [
        {"network": name, **row, "said": _rule(named(name))["module"]}
        for name in networks
        for row in cached_audit(name).modules
    ]
    return pd.DataFrame(rows, columns=columns)


def article_steps(networks: Sequence[str]) -> pd.DataFrame:
    """Columns network, step, said, counted, holds: the article's arithmetic step by step beside what is counted.

    For the first network every step; for the others the sum alone, by the same rule.
    """
    rows = [row for name in networks[:1] for row in _steps(name)]
    rows += [_depth_step(name) for name in networks[1:]]
    frame = pd.DataFrame(rows, columns=["network", "step", "said", "counted"])
    return frame.assign(holds=frame["said"] == frame["counted"])


def _steps(name: str) -> list[dict[str, Any]]:
    spec, audit, layers = named(name), cached_audit(name), layer_frame(name)
    said = _rule(spec)
    trunk = layers[layers["on_trunk"]]
    ends = trunk["stage"].isin(["stem", "head"])
    n_units = sum(spec.units) + sum(spec.tail)
    rows = [
        (
            f"{n_units} units outside the modules, 3 convolutions each",
            said["outside"],
            ((trunk["module"] == "") & ~ends).sum(),
        ),
        (
            f"{sum(spec.modules)} modules of {2 * spec.p + spec.t} trunk units",
            said["modules"],
            (trunk["module"] != "").sum(),
        ),
        ("the first convolution and the classifier", said["ends"], ends.sum()),
        ("their sum, the number in the name", said["named"], audit.quantities["trunk_depth"]),
    ]
    for module in audit.modules:
        where = part_name(module["module"])
        rows += [
            (f"trunk of {where}", said["trunk"], module["trunk_path"]),
            (f"mask of {where}", said["mask"], module["mask_path"]),
            (f"mask and p units of {where}", said["module"], module["longest_path"]),
        ]
    return [{"network": name, "step": s, "said": int(a), "counted": int(b)} for s, a, b in rows] + [_depth_step(name)]


def _depth_step(name: str) -> dict[str, Any]:
    said = _rule(named(name))
    n_modules = sum(named(name).modules)
    return {
        "network": name,
        "step": f"the whole: {said['module']} * {n_modules} + {said['outside']} + {said['ends']}",
        "said": said["depth"],
        "counted": cached_audit(name).quantities["longest_path"],
    }


def depth_ratios(network: str, baseline: str) -> pd.DataFrame:
    """Columns quantity, network, baseline, share, share_of_name: one depth over the other's, like for like, and
    over the number in the baseline's name."""
    ours, theirs = cached_audit(network).quantities, cached_audit(baseline).quantities
    rows = [
        {
            "quantity": q, "network": ours[q], "baseline": theirs[q],
            "share": ours[q] / theirs[q], "share_of_name": ours[q] / theirs["claimed_depth"],  # type: ignore[operator]
        }
        for q in DEPTHS[1:]
    ]  # fmt: skip
    return pd.DataFrame(rows)


def path_length_frame(networks: Iterable[str]) -> pd.DataFrame:
    """Columns network, length (weighted layers), n_paths (exact integers, of any size), share (of all paths)."""
    rows = []
    for name in networks:
        lengths = cached_audit(name).path_lengths
        total = sum(lengths.values())
        rows += [(name, n, count, float(Fraction(count, total))) for n, count in sorted(lengths.items())]
    return pd.DataFrame(rows, columns=["network", "length", "n_paths", "share"]).astype({"n_paths": object})


def path_summary(paths: pd.DataFrame, low: int, high: int) -> pd.DataFrame:
    """Columns network, n_paths, mean_length, low, high, share_between: of a frame of path lengths.

    `share_between`: of the paths with `low` to `high` weighted layers, both included; each path weighs the same.
    """
    rows = []
    for name, part in paths.groupby("network", sort=False):
        counts = dict(zip(map(int, part["length"]), map(int, part["n_paths"]), strict=True))
        total = sum(counts.values())
        between = sum(count for n, count in counts.items() if low <= n <= high)
        mean = mean_length(counts)
        assert mean is not None
        rows.append((name, total, float(mean), low, high, float(Fraction(between, total))))
    columns = ["network", "n_paths", "mean_length", "low", "high", "share_between"]
    return pd.DataFrame(rows, columns=columns).astype({"n_paths": object})


# -- cost


def cost_frame(networks: Iterable[str]) -> pd.DataFrame:
    """Columns network, role, quantity, value, unit: parameters, multiply-adds and FLOPs (twice those) by role."""
    rows = []
    for name in networks:
        for role in cached_audit(name).roles:
            values = {"params": role["params"], "macs": role["macs"], "flops": 2 * role["macs"]}
            rows += [
                {"network": name, "role": role["role"], "quantity": q, "value": values[q], "unit": QUANTITIES[q].unit}
                for q in COSTS
            ]
    return pd.DataFrame(rows)


def crosscheck_frame(checks: Iterable[Check]) -> pd.DataFrame:
    """One row for each number of another tool: what it reports, ours, and what the difference is made of."""
    rows = [
        {
            "network": check.target, "tool": check.tool, "version": check.version, "quantity": check.quantity,
            "definition": check.definition, "reported": check.reported, "ours": check.ours,
            "difference": check.difference,
            "explained_by": "; ".join(f"{cause}: {n:,}" for cause, n in check.causes.items()),
            "unexplained": check.unexplained, "uncounted": ", ".join(check.uncounted),
        }
        for check in checks
    ]  # fmt: skip
    return pd.DataFrame(rows)


def published_frame(source: str, places: Collection[str]) -> pd.DataFrame:
    """The ledger's rows about parameters, cost and depth in some places of a source, each with its verdict.

    Columns id, source, place, subject, quantity, printed, measured, verdict, why.
    Raises: FrameError where the ledger has none.
    """
    from analysis.claims.ledger import ledger
    from resattn.claims.measured import measure
    from resattn.claims.verdicts import judge, verdict_table

    claims = [
        c for c in ledger() if c.source == source and c.place in places and c.quantity in ("params", "cost", "depth")
    ]
    if not claims:
        raise FrameError(f"the ledger has no counted row from {source} in {', '.join(places)}")
    table = verdict_table(judge(claims, measure))
    return table[["id", "source", "place", "subject", "quantity", "printed", "measured", "verdict", "why"]]


def printed_params(source: str, place: str, networks: Iterable[str]) -> dict[str, str]:
    """The parameters, in millions, that a source prints for each network, as text: its digits are the tolerance.

    Raises: FrameError where the ledger has no such row.
    """
    from analysis.claims.ledger import ledger

    rows = {
        str(c.subject): c.value
        for c in ledger()
        if c.source == source and c.place == place and c.quantity == "params" and c.unit == "M"
    }
    missing = [name for name in networks if name not in rows]
    if missing:
        raise FrameError(f"the ledger has no parameters of {missing[0]} from {source}, {place}")
    return {name: rows[name] for name in networks}


def finding_counts(claims: pd.DataFrame, least: int = 10) -> pd.DataFrame:
    """Columns source, verdict, n: of a verdict table, the largest source first; those of few rows stand as one."""
    sizes = claims["source"].value_counts()
    small = set(sizes[sizes < least].index)
    source = claims["source"].where(~claims["source"].isin(small), f"{len(small)} others")
    counts = claims.groupby([source, "verdict"]).size().rename("n").reset_index()
    order = [name for name in sizes.index if name not in small] + [f"{len(small)} others"]
    return counts.sort_values("source", key=lambda names: names.map(order.index), kind="stable", ignore_index=True)


# -- receptive field


def receptive_frame(networks: Iterable[str | NetworkSpec]) -> pd.DataFrame:
    """Columns network, stage, branch, value, least, low_px, high_px, unit: what a unit at a stage's end sees.

    `branch` is "mask" with the masks and "trunk" without. `value` and `least`: the largest and the smallest side
    over positions that see no border, on an input large enough to have such. `low_px`, `high_px`: where the square
    of the central unit begins and ends, relative to the middle of the input.
    """
    rows = []
    for seen in _views(networks):
        for stage, extent in seen.extents.items():
            free = extent.sides[~extent.clipped]
            centre = len(extent) // 2
            rows.append(
                {
                    "network": seen.network, "stage": stage, "branch": seen.branch, "value": int(free.max()),
                    "least": int(free.min()), "low_px": int(extent.lo[centre]) - seen.middle,
                    "high_px": int(extent.hi[centre]) + 1 - seen.middle, "unit": QUANTITIES["receptive_field_px"].unit,
                }
            )  # fmt: skip
    columns = ["network", "stage", "branch", "value", "least", "low_px", "high_px", "unit"]
    return pd.DataFrame(rows, columns=columns)


def input_side(network: str) -> int:
    """The side of a network's own input in pixels."""
    return max(named(network).input_shape[1:])


def scene(network: str, photo: str) -> np.ndarray:
    """An image to draw over, (height, width, 3) uint8: scikit-learn's photo, or a cluttered digit at CIFAR's size."""
    if input_side(network) <= SIDE:
        from resattn.training.digits import cluttered_digits

        (images, _, _), _ = cluttered_digits(0, train=1, test=1)
        return np.ascontiguousarray(images[0].transpose(1, 2, 0))
    from sklearn.datasets import load_sample_image

    return np.asarray(load_sample_image(photo))


def gradient_frame(networks: Iterable[str], share: float = 0.95) -> pd.DataFrame:
    """What the central unit of each stage's end sees, by intervals and by the gradient of a positive linear twin.

    Columns network, stage, branch, low_px, high_px (by intervals), gradient_low_px, gradient_high_px, side_px,
    gradient_side_px, central_low_px, central_high_px (the middle stretch with `share` of the twin's weight), agrees.
    """
    rows = []
    for seen in _views(networks):
        for stage, extent in seen.extents.items():
            centre = len(extent) // 2
            support = gradient_support(
                seen.model, (seen.channels, seen.rows), stage, position=centre, has_masks=seen.branch == roles.MASK
            )
            low, high = int(extent.lo[centre]), int(extent.hi[centre])
            central = support.central(share)
            rows.append(
                {
                    "network": seen.network, "stage": stage, "branch": seen.branch,
                    "low_px": low - seen.middle, "high_px": high + 1 - seen.middle,
                    "gradient_low_px": support.low - seen.middle, "gradient_high_px": support.high + 1 - seen.middle,
                    "side_px": high + 1 - low, "gradient_side_px": support.side_px,
                    "central_low_px": central[0] - seen.middle, "central_high_px": central[1] + 1 - seen.middle,
                    "agrees": (low, high) == (support.low, support.high),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class _View:
    """The vertical extents at each stage's end of a network, with its masks or without, on a large input."""

    network: str
    model: Network
    branch: str
    channels: int
    rows: int
    extents: Mapping[str, Extent]

    @property
    def middle(self) -> int:
        return self.rows // 2


def _views(networks: Iterable[str | NetworkSpec]) -> Iterator[_View]:
    for network in networks:
        spec = named(network) if isinstance(network, str) else network
        model, graph = captured(spec)
        target = receptive.feature_map(graph)
        assert target is not None  # a network of the catalog has a last feature map
        large = unclipped(model, graph, target, [(1, *spec.input_shape)])
        ends = _stage_ends(large, spec)
        masks = roles.roles(large, layer_flags(large)).ops(roles.MASK)
        seen = {roles.TRUNK: large.without(masks)} | ({roles.MASK: large} if spec.has_masks else {})
        for branch, view in seen.items():
            found = receptive.extents(view, 0, list(ends.values()))
            extents = {stage: found[index] for stage, index in ends.items()}
            yield _View(spec.name, model, branch, spec.input_shape[0], large.input_shapes[0][2], extents)


def _stage_ends(graph: Graph, spec: NetworkSpec) -> dict[str, int]:
    """The operator that gives what each stage gives."""
    last = {op.module.split(".", 1)[0]: op.index for op in graph.ops}
    return {stage.name: last[stage.name] for stage in spec.stages}


# -- training runs


def about_run(run: Run) -> dict[str, Any]:
    """The provenance of a run's tables: its network, data, seed and weights, and on what it ran."""
    return about(
        [], network=run.config.spec.name, spec_digest=run.config.spec.digest, config_digest=run.config.digest,
        dataset=run.dataset_label, dataset_digest=run.dataset_digest, seed=run.config.seed,
        weights_digest=run.weights_digest, execution=run.execution,
    )  # fmt: skip


def run_row(run: Run) -> pd.DataFrame:
    """One row: what was trained on what, how it ended, and what the network is; the columns of `RUN_COLUMNS` first."""
    quantities = cached_audit(run.config.spec).quantities
    config = run.config
    row = {
        "network": config.spec.name,
        "dataset": run.dataset_label,
        "seed": config.seed,
        "epochs": config.epochs,
        "images": config.images or config.size.train,
        "label_noise": config.label_noise,
        "test_error_pct": run.test_error_pct,
        "train_error_pct": run.rows[-1]["train_error_pct"],
        "images_per_s": run.images_per_s,
        "elapsed_s": run.elapsed_s,
        "peak_memory_bytes": max(row["peak_memory_bytes"] for row in run.timing),
        **{q: quantities[q] for q in ("params", "macs", *DEPTHS)},
        "batch_size": config.batch_size,
        "precision": config.precision,
        "device": run.execution["device"],
        "weights_digest": run.weights_digest,
    }
    return pd.DataFrame([row])


def epoch_rows(run: Run) -> pd.DataFrame:
    """One row for each epoch: network, dataset, seed, and what the run noted, times included."""
    frame = pd.DataFrame(run.rows).merge(pd.DataFrame(run.timing), on="epoch")
    config = run.config
    first = {
        "network": config.spec.name, "dataset": run.dataset_label, "seed": config.seed,
        "label_noise": config.label_noise,
    }  # fmt: skip
    return frame.assign(**first)[[*first, *frame.columns]]


def run_frame(folder: Path | str) -> pd.DataFrame:
    """Every run below a folder, one row each, from the `run.csv` that each run wrote, by noise, network and seed.

    Adds s_per_epoch and training_macs. Raises: FrameError where there is none; TableError for a table that is none.
    """
    runs = _with_defaults(_concatenated(Path(folder), "run.csv", RUN_COLUMNS))
    steps = runs["images"] // runs["batch_size"] * runs["batch_size"] if "batch_size" in runs else runs["images"]
    runs = runs.assign(
        s_per_epoch=runs["elapsed_s"] / runs["epochs"], training_macs=3 * runs["macs"] * steps * runs["epochs"]
    )
    return runs.sort_values(["label_noise", "network", "seed"], ignore_index=True, kind="stable")


def _with_defaults(frame: pd.DataFrame) -> pd.DataFrame:
    """With the columns that tables of an earlier version lack."""
    return frame.assign(**{name: value for name, value in LATER_COLUMNS.items() if name not in frame})


LATER_COLUMNS: Mapping[str, float] = {"label_noise": 0.0, "peak_memory_bytes": float("nan")}


def budget(runs: pd.DataFrame) -> str:
    """What the runs were given, for the head of a figure: data, epochs, images, seeds."""
    said = [", ".join(runs["dataset"].unique())]
    for column, words in (("epochs", "{} epochs"), ("images", "{} training images")):
        values = sorted(runs[column].unique())
        said.append(words.format(" or ".join(f"{v:,}" for v in values)))
    if runs["label_noise"].any():
        said.append(" or ".join(f"{100 * v:.0f} %" for v in sorted(runs["label_noise"].unique())) + " label noise")
    fewest = int(runs.groupby("network")["seed"].nunique().min())
    return ", ".join(said) + f"; {fewest} seed{'s' if fewest > 1 else ''} of each network"


def epoch_frame(folder: Path | str) -> pd.DataFrame:
    """Every epoch of every run below a folder, from the runs' `epochs.csv`. Raises: FrameError, TableError."""
    return _with_defaults(_concatenated(Path(folder), "epochs.csv", EPOCH_COLUMNS))


RUN_COLUMNS: Mapping[str, type] = {
    "network": str, "dataset": str, "seed": int, "epochs": int, "images": int, "test_error_pct": float,
    "images_per_s": float, "elapsed_s": float, "params": int, "macs": int, "trunk_depth": int, "longest_path": int,
    "weighted_layers": int,
}  # fmt: skip
EPOCH_COLUMNS: Mapping[str, type] = {"network": str, "dataset": str, "seed": int, "epoch": int, "test_error_pct": float}


def _concatenated(folder: Path, name: str, columns: Mapping[str, type]) -> pd.DataFrame:
    paths = sorted(path for path in folder.glob(f"*/tables/{name}"))
    if not paths:
        raise FrameError(f"no run in {folder}: no */tables/{name} (run 50_train with an out_dir below it)")
    frames = [read_table(path, columns) for path in paths]
    for path, frame in zip(paths, frames, strict=True):
        if frame.empty:
            raise TableError(path, "no rows", "at least one")
    return pd.concat(frames, ignore_index=True)


COMPARED = ("test_error_pct", "images_per_s", "s_per_epoch", "peak_memory_bytes", "training_macs")


def comparison_frame(runs: pd.DataFrame, quantities: Sequence[str] = COMPARED) -> pd.DataFrame:
    """Columns network, dataset, label_noise, quantity, n, mean, low, high, least, largest, unit: of their runs.

    `low` and `high`: the confidence interval of the mean, empty where the runs allow none. A quantity that the runs
    did not record has no row.
    """
    rows = []
    for (network, dataset, noise), part in runs.groupby(["network", "dataset", "label_noise"], sort=False):
        for q in quantities:
            if part[q].isna().any():
                continue
            values = part[q].astype(float)
            found = mean_interval(list(values))
            rows.append(
                {
                    "network": network,
                    "dataset": dataset,
                    "label_noise": noise,
                    "quantity": q,
                    "n": found.n,
                    "mean": found.mean,
                    "low": found.low,
                    "high": found.high,
                    "least": values.min(),
                    "largest": values.max(),
                    "unit": quantity(q).unit,
                }
            )
    return pd.DataFrame(rows).astype({"low": float, "high": float})


def pair_frame(runs: pd.DataFrame, reference: str = "") -> pd.DataFrame:
    """Columns network, reference, label_noise, seed, difference: error of the reference less that of a network.

    In points of %; of every seed that both were trained with, on the same data with the same noise and budget.
    Without a reference each network is paired with its twin: the one that lacks some of its settings.
    Raises: FrameError where the reference has no run, or no network a twin.
    """
    if not reference:
        networks = list(runs["network"].unique())
        twins = {name: twin for name in networks if (twin := _twin(name, networks))}
        if not twins:
            raise FrameError(f"no network has a twin without its settings (there are runs of: {', '.join(networks)})")
        parts = (pair_frame(runs[runs["network"].isin([name, twin])], twin) for name, twin in twins.items())
        return pd.concat(parts, ignore_index=True)
    if reference not in set(runs["network"]):
        raise FrameError(f"no run of {reference!r} (there are runs of: {', '.join(runs['network'].unique())})")
    same = ["dataset", "epochs", "images", "label_noise", "seed"]
    ours = runs[runs["network"] == reference]
    pairs = runs[runs["network"] != reference].merge(ours, on=same, suffixes=("", "_reference"))
    pairs["difference"] = pairs["test_error_pct_reference"] - pairs["test_error_pct"]
    return pairs.assign(reference=reference)[["network", "reference", "label_noise", "seed", "difference"]]


def _twin(network: str, networks: Iterable[str]) -> str | None:
    """Of the networks of the same name the one with the most of its settings, and no other."""
    name, own = name_and_settings(network)
    others = ((other, *name_and_settings(other)) for other in networks)
    twins = [(len(theirs), other) for other, base, theirs in others if base == name and theirs < own]
    return max(twins)[1] if twins else None


def difference_frame(pairs: pd.DataFrame, margin: float = 1.0) -> pd.DataFrame:
    """What the pairs of each network say; negative: the reference errs less.

    Columns network, reference, label_noise, n, mean, low, high, p_value, unit, note, equivalence. Interval and test
    are those of `analysis.statistics.stats.compare`; `equivalence`: whether the two are equal within `margin` points.
    """
    rows = []
    for (network, reference, noise), part in pairs.groupby(["network", "reference", "label_noise"], sort=False):
        found = compare(dict(zip(part["seed"], part["difference"], strict=True)), dict.fromkeys(part["seed"], 0.0))
        rows.append(
            {
                "network": network,
                "reference": reference,
                "label_noise": noise,
                "n": found.interval.n,
                "mean": found.interval.mean,
                "low": found.interval.low,
                "high": found.interval.high,
                "p_value": found.p_value,
                "unit": "points of %",
                "note": " ".join(filter(None, [found.note, found.interval.note])),
                "equivalence": found.equivalence(margin),
            }
        )
    columns = [
        "network", "reference", "label_noise", "n", "mean", "low", "high", "p_value", "unit", "note", "equivalence",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).astype({"low": float, "high": float, "p_value": float})
