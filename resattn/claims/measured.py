"""The counted numbers for a ledger: one for each subject and quantity.

The numbers of a network are the rows of `resattn.measures.quantities`. A printed number may be about one part of it;
each such number is one row of `PART` here, a function of the same captured network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING

from resattn.claims.claims import ClaimError, Runs, Subject, parse_subject
from resattn.claims.vocabulary import TRAINING_RESULTS
from resattn.measures import depth, receptive, roles
from resattn.measures.captured import Captured, PartError, captured, is_in
from resattn.measures.quantities import QUANTITIES, SPLITS, Absent
from resattn.networks.catalog import UnknownNetworkError, named
from resattn.networks.spec import NetworkSpec, override

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


def _poolings(network: Captured, part: str) -> int:
    return sum(op.kind == "pool" for op in network.inside(part, roles.MASK))


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
    "poolings": _poolings,
    "modules": _modules,
    "units_outside_modules": _units_outside_modules,
    "map_size_px": _map_size,
    "out_channels": lambda network, part: network.inside(part)[-1].shape[1],
    "receptive_field_px": lambda network, part: max(_sides(network, part)),
    "receptive_field_least_px": lambda network, part: min(_sides(network, part)),
    "receptive_field_trunk_px": lambda network, part: max(_sides(network, part, masks=False)),
}


def measure(subject: Subject, quantity: str) -> int | float | None:
    """The counted number; None for a network outside the catalog, or a quantity that nothing here counts.

    Raises: ClaimError for a part that the network has not; SpecError for settings that make no network.
    """
    spec = spec_of(subject)
    if spec is None:
        return None
    network = captured(spec)
    if subject.part:
        try:
            return PART[quantity](network, subject.part) if quantity in PART else None
        except PartError as error:
            raise ClaimError(f"{subject}: {error}") from None
    row = QUANTITIES.get(quantity) or SPLITS.get(quantity)
    value = row.value(network) if row else None
    return None if isinstance(value, Absent) else value


def spec_of(subject: Subject) -> NetworkSpec | None:
    """The network of a subject with its settings, whatever part is meant; None for one outside the catalog."""
    try:
        # The name is kept, so that settings that change nothing do not make another network to be captured.
        return override(named(subject.network), {**dict(subject.settings), "name": subject.network})
    except UnknownNetworkError:
        return None


# ------------------------------------------------------------------------------------------------ of training runs


RUN_COLUMNS = ("subject", "quantity", "seed", "value")


def runs_of_table(frame: DataFrame) -> Runs:
    """The training runs of a table, for `judge`.

    Columns: subject (`cifar-attention56 merge=naive`), quantity (`cifar10_error_final_epoch`), seed, value (errors and
    accuracies as fractions, not per cent). Only runs with the printed recipe belong in it; a shorter run tests nothing.
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
