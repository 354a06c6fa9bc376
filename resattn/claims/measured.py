"""The counted number for each subject and quantity of a ledger.

The numbers of a network are the rows of `resattn.measures.quantities`. A printed number may be about a part of a
network; each such number is a row of `PART` here, a function of the same captured network.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from resattn.claims.claims import INPUT, ClaimError, Runs, Subject, UnmeasuredError, is_classic, parse_subject
from resattn.claims.vocabulary import FOREIGN, TRAINING_RESULTS
from resattn.extras import MissingError
from resattn.graph.errors import CaptureError
from resattn.measures import depth, receptive, roles
from resattn.measures.captured import Captured, PartError, captured, is_in
from resattn.measures.quantities import QUANTITIES, SPLITS, Absent
from resattn.networks import classic
from resattn.networks.catalog import UnknownNetworkError, is_name, named
from resattn.networks.mask import GATES
from resattn.networks.spec import NetworkSpec, override
from resattn.targets import LIBRARIES, ModelError, TargetError, model_of

if TYPE_CHECKING:
    from pandas import DataFrame


def _units_outside_modules(network: Captured, part: str) -> int:
    network.inside(part)
    return sum(is_in(unit, part) and not network.attention_module(unit) for unit in network.units)


def _units_inside(network: Captured, part: str) -> int:
    network.inside(part)
    return sum(is_in(unit, part) for unit in network.units)


def _mask_units_on_path(network: Captured, part: str) -> int:
    # One flag for each unit, on its first layer: the longest path then counts units instead of layers.
    mask = network.inside(f"{part}.mask")
    units = [unit for unit in network.units if is_in(unit, f"{part}.mask")]
    first = {next(op.index for op in mask if network.is_layer[op.index] and is_in(op.module, unit)) for unit in units}
    return depth.longest_within(mask, [index in first for index in range(len(network.graph.ops))])


def _modules(network: Captured, part: str) -> int:
    network.inside(part)
    return sum(is_in(module, part) for module in network.attention_modules)


def _longest(*roles: str) -> Callable[[Captured, str], int]:
    return lambda network, part: depth.longest_within(network.inside(part, *roles), network.is_layer)


def _map_size(network: Captured, part: str) -> int:
    return network.inside(part)[-1].shape[-1] if len(network.inside(part)[-1].shape) > 2 else 1


def _sides(network: Captured, part: str, *, masks: bool = True) -> list[int]:
    """What each unclipped unit of a part's output sees, vertically, in pixels."""
    last, graph = network.inside(part)[-1], network.large
    seen = graph if masks else graph.without(network.masks)
    extent = receptive.extents(seen, 0, [last.index])[last.index]
    return [int(side) for side in extent.sides[~extent.clipped]]


PART: Mapping[str, Callable[[Captured, str], int]] = {
    "module_longest_path": _longest(),
    "module_trunk_path": _longest(roles.TRUNK, roles.SHORTCUT),
    "mask_longest_path": _longest(roles.MASK),
    "mask_conv_layers": lambda network, part: sum(
        network.is_layer[op.index] for op in network.inside(part, roles.MASK)
    ),
    "mask_units": lambda network, part: _units_inside(network, f"{part}.mask"),
    "mask_units_on_path": _mask_units_on_path,
    "units_inside": _units_inside,
    "poolings": lambda network, part: sum(op.kind == "pool" for op in network.inside(part, roles.MASK)),
    "modules": _modules,
    "units_outside_modules": _units_outside_modules,
    "map_size_px": _map_size,
    "out_channels": lambda network, part: network.inside(part)[-1].shape[1],
    "receptive_field_px": lambda network, part: max(_sides(network, part)),
    "receptive_field_least_px": lambda network, part: min(_sides(network, part)),
    "receptive_field_trunk_px": lambda network, part: max(_sides(network, part, masks=False)),
}


def _mask_values(spec: NetworkSpec) -> torch.Tensor:
    """What the gate makes of maps (N, C, H, W) that are 1e6, or -1e6, in one value and 0 elsewhere."""
    maps = torch.zeros(2, 4, 64, 64, dtype=torch.float64)
    maps[0, 0, 0, 0], maps[1, 0, 0, 0] = 1e6, -1e6
    values: torch.Tensor = GATES[spec.gate]()(maps)
    return values


def _drawn_mask_values(spec: NetworkSpec) -> torch.Tensor:
    drawn = torch.randn(4, 16, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values: torch.Tensor = GATES[spec.gate]()(1e3 * drawn)
    return values


def _common(values: torch.Tensor) -> float | None:
    """The value that all share, to three decimals; None if they differ."""
    low, high = round(float(values.min()), 3), round(float(values.max()), 3)
    return low if low == high else None


# Of a network's gate, as the function that it is: its weights and its input do not enter.
GATE: Mapping[str, Callable[[NetworkSpec], float | None]] = {
    "mask_least": lambda spec: round(float(_mask_values(spec).min()), 3),
    "mask_most": lambda spec: round(float(_mask_values(spec).max()), 3),
    "mask_norm": lambda spec: _common(_drawn_mask_values(spec).square().sum(1).sqrt()),
    "mask_logit_spread": lambda spec: _common(_drawn_mask_values(spec).logit().std((2, 3), correction=0)),
}


def measure(subject: Subject, quantity: str) -> int | float | None:
    """The counted number; None if the network cannot be built here or nothing here counts the quantity.

    Raises: ClaimError for a part that the network does not have, or a target that names no model; UnmeasuredError for a
    model that cannot be built or captured here; SpecError for settings that describe no network.
    """
    spec = spec_of(subject)
    if spec is not None and quantity in GATE:
        return GATE[quantity](spec) if spec.has_masks else None
    network = captured(spec) if spec is not None else _model(subject)
    if network is None:
        return None
    if subject.part:
        try:
            return PART[quantity](network, subject.part) if quantity in PART else None
        except PartError as error:
            raise ClaimError(f"{subject}: {error}") from None
    row = QUANTITIES.get(quantity) or SPLITS.get(quantity)
    value = row.value(network) if row else None
    return None if isinstance(value, Absent) else value


@functools.lru_cache(maxsize=8)
def _captured_model(target: str, shape: tuple[int, ...], version: object) -> Captured | str:
    """The model, or why there is none. `version` tells a file from what it was before, or in another folder."""
    try:
        return Captured.of(model_of(target), (1, *shape), name=target)
    except (MissingError, ModelError, CaptureError) as error:
        return str(error)
    except TargetError as error:
        if target.partition(":")[0] in LIBRARIES:  # another version of the library has it
            return str(error)
        raise ClaimError(str(error)) from None


def _model(subject: Subject) -> Captured | None:
    """A classic network or the target of a model; None for another name. Raises: UnmeasuredError, ClaimError."""
    if is_classic(subject.network):
        row = classic.ZOO[subject.network]
        return _built(f"{row.make.__module__}:{subject.network}", row.input_shape)
    if subject.network in FOREIGN or is_name(subject.network):
        return None
    shape = dict(subject.settings)[INPUT]
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", shape):
        raise ClaimError(f"{subject}: {INPUT} {shape!r} is no shape, such as 3,224,224")
    return _built(subject.network, tuple(map(int, shape.split(","))))


def _built(target: str, shape: tuple[int, ...]) -> Captured:
    file = Path(target.rpartition(":")[0])
    version = (file.resolve(), file.stat().st_mtime_ns) if file.is_file() else Path.cwd()
    if isinstance(found := _captured_model(target, shape, version), str):
        raise UnmeasuredError(found)
    return found


def spec_of(subject: Subject) -> NetworkSpec | None:
    """The spec of a subject's network with its settings, without its part; None for a network outside the catalog."""
    try:
        # The name is kept, so that settings that change nothing do not make another network to be captured.
        return override(named(subject.network), {**dict(subject.settings), "name": subject.network})
    except UnknownNetworkError:
        return None


# ------------------------------------------------------------------------------------------------ of training runs


RUN_COLUMNS = ("subject", "quantity", "seed", "value")


def runs_of_table(frame: DataFrame) -> Runs:
    """The training runs in a table, as a function for `judge`.

    Columns: subject (`cifar-attention56 merge=naive`), quantity (`cifar10_error_final_epoch`), seed, value (errors and
    accuracies as fractions, not per cent). The table may contain only runs with the printed recipe.
    Raises: ClaimError for a missing column, an unknown subject or quantity, or a value out of range.
    """
    if missing := [column for column in RUN_COLUMNS if column not in frame.columns]:
        raise ClaimError(f"the table of runs lacks {', '.join(missing)} (columns: {', '.join(RUN_COLUMNS)})")
    found: dict[tuple[NetworkSpec, str, str], dict[int, float]] = {}
    for n, row in enumerate(frame[list(RUN_COLUMNS)].to_dict("records"), start=1):
        where = f"row {n} of the table of runs"
        if row["quantity"] not in TRAINING_RESULTS:
            near = get_close_matches(str(row["quantity"]), TRAINING_RESULTS, n=3)
            raise ClaimError(f"{where}: unknown quantity {row['quantity']!r} (nearest: {', '.join(near)})")
        about = parse_subject(row["subject"])
        spec = spec_of(about)
        if spec is None:
            raise ClaimError(f"{where}: no network {row['subject']!r} in the catalog")
        if not math.isfinite(row["value"]) or (is_share(row["quantity"]) and not 0 <= row["value"] <= 1):
            raise ClaimError(f"{where}: value {row['value']!r} of {row['quantity']} is no fraction between 0 and 1")
        found.setdefault((spec, about.part, row["quantity"]), {})[int(row["seed"])] = float(row["value"])

    def runs(subject: Subject, quantity: str) -> Mapping[int, float]:
        spec = spec_of(subject)
        return {} if spec is None else found.get((spec, subject.part, quantity), {})

    return runs


def is_share(quantity: str) -> bool:
    return "_error" in quantity or "_accuracy" in quantity
