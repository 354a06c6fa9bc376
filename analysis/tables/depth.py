"""The depth of networks: by notion, role, stage and module, the article's arithmetic, and the lengths of all paths."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import pandas as pd

from analysis.tables import schemas
from analysis.tables.formats import part_name
from analysis.tables.layers import layer_frame
from analysis.tables.quantities import DEPTHS
from resattn.measures import roles
from resattn.measures.audit import audit
from resattn.measures.paths import mean_length
from resattn.measures.quantities import QUANTITIES
from resattn.measures.used import used
from resattn.networks.catalog import named
from resattn.networks.spec import NetworkSpec


def depth_frame(networks: Iterable[str]) -> pd.DataFrame:
    """Each notion of depth of each network: `schemas.DEPTH`."""
    rows = [
        {"network": found.target, "quantity": q, "value": found.quantities.get(q), "unit": QUANTITIES[q].unit}
        for found in map(audit, networks)
        for q in DEPTHS
    ]
    return pd.DataFrame(rows, columns=["network", "quantity", "value", "unit"]).astype({"value": object})


def depth_by_role(networks: Iterable[str]) -> pd.DataFrame:
    """Columns network, notion, role, value: the layers on the longest path, and all layers, by role.

    A row with notion "claimed_depth" has the number in the name, and no role.
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
    """The layers that each stage contributes to each notion of depth, by role: `schemas.STAGES`."""
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
    """The path lengths of each attention module, beside the article's depth of a module: `schemas.MODULES`."""
    rows = [
        {"network": name, **row, "stated": _rule(named(name))["module"]}
        for name in networks
        for row in audit(name).modules
    ]
    return pd.DataFrame(rows, columns=schemas.MODULES.names)


def article_steps(networks: Sequence[str]) -> pd.DataFrame:
    """The article's arithmetic step by step, beside our counts: `schemas.ARTICLE`.

    All steps for the first network; only the sum for the others, by the same rule.
    """
    rows = [row for name in networks[:1] for row in _steps(name)]
    rows += [_depth_step(name) for name in networks[1:]]
    frame = pd.DataFrame(rows, columns=schemas.ARTICLE.names[:-1])
    return frame.assign(holds=frame["stated"] == frame["counted"])


def _steps(name: str) -> list[dict[str, Any]]:
    spec, counted, layers = named(name), audit(name), layer_frame(name)
    stated = _rule(spec)
    trunk = layers[layers["on_trunk"]]
    ends = trunk["stage"].isin(["stem", "head"])
    n_units = sum(spec.units) + sum(spec.tail)
    in_module = trunk["module"] != ""
    trunk_units = 2 * spec.p + spec.t
    rows = [
        (f"{n_units} units outside the modules, 3 convolutions each", stated["outside"], (~in_module & ~ends).sum()),
        (f"{sum(spec.modules)} modules of {trunk_units} trunk units", stated["modules"], in_module.sum()),
        ("the first convolution and the classifier", stated["ends"], ends.sum()),
        ("their sum, the number in the name", stated["named"], counted.quantities["trunk_depth"]),
    ]
    for module in counted.modules:
        where = part_name(module["module"])
        rows += [
            (f"trunk of {where}", stated["trunk"], module["trunk_path"]),
            (f"mask of {where}", stated["mask"], module["mask_path"]),
            (f"mask and p units of {where}", stated["module"], module["longest_path"]),
        ]
    return [{"network": name, "step": s, "stated": int(a), "counted": int(b)} for s, a, b in rows] + [_depth_step(name)]


def _depth_step(name: str) -> dict[str, Any]:
    stated = _rule(named(name))
    n_modules = sum(named(name).modules)
    return {
        "network": name,
        "step": f"in total: {stated['module']} * {n_modules} + {stated['outside']} + {stated['ends']}",
        "stated": stated["depth"],
        "counted": audit(name).quantities["longest_path"],
    }


def depth_ratios(network: str, baseline: str) -> pd.DataFrame:
    """The depth of one network over another's by notion, and over the number in the other's name: `schemas.RATIOS`."""
    ours, theirs = audit(network).quantities, audit(baseline).quantities
    rows = [
        {
            "quantity": q, "network": ours[q], "baseline": theirs[q],
            "share": ours[q] / theirs[q], "share_of_name": ours[q] / theirs["claimed_depth"],  # type: ignore[operator]
        }
        for q in DEPTHS[1:]
    ]  # fmt: skip
    return pd.DataFrame(rows)


def path_length_frame(networks: Iterable[str]) -> pd.DataFrame:
    """The number of paths for each length, in exact integers: `schemas.PATH_LENGTHS`."""
    rows = []
    for name in networks:
        lengths = audit(name).path_lengths
        total = sum(lengths.values())
        rows += [(name, n, count, float(Fraction(count, total))) for n, count in sorted(lengths.items())]
    return pd.DataFrame(rows, columns=schemas.PATH_LENGTHS.names).astype({"n_paths": object})


def used_depth_frame(networks: Iterable[str]) -> pd.DataFrame:
    """The gradient's energy by path length with random weights: `schemas.USED_UNTRAINED`.

    For one input drawn from N(0, 1) and one random direction of the outputs; see `resattn.measures.used`.
    """
    rows = []
    for name in networks:
        found = used(name)
        n_paths = sum(found.counts.values())
        rows += [(name, n, share, float(Fraction(found.counts[n], n_paths))) for n, share in found.share.items()]
    return pd.DataFrame(rows, columns=schemas.USED_UNTRAINED.names)


def path_summary(paths: pd.DataFrame, low: int, high: int) -> pd.DataFrame:
    """Mean length, and the share of paths with `low` to `high` weighted layers: `schemas.PATH_SUMMARY`.

    `paths`: of `path_length_frame`. Each path has the same weight.
    """
    rows = []
    for name, part in paths.groupby("network", sort=False):
        counts = dict(zip(map(int, part["length"]), map(int, part["n_paths"]), strict=True))
        total = sum(counts.values())
        between = sum(count for n, count in counts.items() if low <= n <= high)
        mean = mean_length(counts)
        assert mean is not None
        rows.append((name, total, float(mean), low, high, float(Fraction(between, total))))
    return pd.DataFrame(rows, columns=schemas.PATH_SUMMARY.names).astype({"n_paths": object})
