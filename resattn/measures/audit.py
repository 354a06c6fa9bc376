"""From a spec, a name or any model to its audit: one capture, every fold."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from html import escape
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from torch import nn

from resattn.graph.capture import CaptureError, NeedsValuesError, capture
from resattn.graph.graph import INPUT, Graph, Op
from resattn.graph.inputs import Inputs
from resattn.measures import cost, depth, paths, receptive, roles
from resattn.measures.quantities import QUANTITIES
from resattn.measures.receptive import ReceptiveField
from resattn.networks import catalog
from resattn.networks.network import Network, build
from resattn.networks.spec import NetworkSpec
from resattn.rules.table import layer_flags, rule_for, unknown_ops
from resattn.targets import TargetError, resolved

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class Audit:
    """The numbers of one network. A quantity that an unknown operator touches is None, and `status` is partial."""

    target: str
    input_shape: tuple[int, ...]
    spec_digest: str | None
    status: str
    unknown_ops: tuple[str, ...]
    quantities: Mapping[str, int | float | None]
    roles: tuple[Mapping[str, Any], ...]
    roles_found_by: str
    modules: tuple[Mapping[str, Any], ...]
    path_lengths: Mapping[int, int]
    longest_path_layers: tuple[str, ...]
    dead_modules: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())
    # What units at the end of modules that were asked about see; and the shapes of inputs after the first.
    fields: tuple[Mapping[str, Any], ...] = ()
    more_inputs: tuple[tuple[int, ...], ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "path_lengths": {str(k): v for k, v in self.path_lengths.items()}}

    def __repr__(self) -> str:
        return f"Audit({self.target}: {self.status}, input {'x'.join(map(str, self.input_shape))})"

    def __str__(self) -> str:
        """Each quantity in a line, then what is to be known about the numbers; at most 80 columns wide."""
        width = max(map(len, self.quantities), default=0)
        shapes = " and ".join("x".join(map(str, shape)) for shape in (self.input_shape, *self.more_inputs))
        about = [
            f"masks found by {self.roles_found_by}",
            *self.notes,
            *(f"no rule for {op}" for op in self.unknown_ops),
        ]
        return "\n".join(
            [
                f"{self.target}: {self.status}, input {shapes}",
                *(f"  {q:{width}}  {_number(n)} {QUANTITIES[q].unit}".rstrip() for q, n in self.quantities.items()),
                *(textwrap.fill(text, 80, initial_indent="  ", subsequent_indent="    ") for text in about),
            ]
        )

    def _repr_html_(self) -> str:
        """For a notebook: each quantity with its definition, and what there is to say about the count."""
        rows = "".join(
            f'<tr><th scope="row" style="text-align:left">{escape(QUANTITIES[q].label)}</th>'
            f"<td>{_number(n)}</td>"
            f'<td style="text-align:left">{escape(QUANTITIES[q].definition)}</td></tr>'
            for q, n in self.quantities.items()
        )
        shape = " x ".join(map(str, self.input_shape))
        said = [self.status, f"input {shape}", f"masks found by {self.roles_found_by}", *self.notes]
        said += [f"no rule for {op}" for op in self.unknown_ops]
        return (
            f"<b>{escape(self.target)}</b><table><tbody>{rows}</tbody></table><small>{escape('; '.join(said))}</small>"
        )


def _number(value: int | float | None) -> str:
    return "unknown" if value is None else f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"


def audit(
    target: str | NetworkSpec | nn.Module,
    *args: Any,
    settings: Mapping[str, Any] | None = None,
    device: str = "meta",
    at: Sequence[str] = (),
    **kwargs: Any,
) -> Audit:
    """Every quantity of `resattn.measures.quantities` for a model, a spec, a named network or `module:callable`.

    `args`, `kwargs`: example tensors as the forward takes them, with their batch; or shapes without it, such as
    `(3, 224, 224)`, where the batch is 1. A shape of whole numbers, as token ids are, is an `Indices`. A spec brings
    its own input shape.
    `settings` (fields of a named network), `device` and `at` are ours; every other keyword goes to the forward. On
    "meta" nothing is computed. `at`: module paths; the receptive fields of their units are reported too.
    Raises: TargetError, SpecError, CaptureError.
    """
    with resolved(target, args, kwargs, settings=settings) as found:
        call, model = _Call(found.inputs, device, tuple(at)), found.make(device)
        about = () if found.spec is None else (found.spec.digest, found.spec.claimed_depth)
        try:
            return _audit_model(model, found.name, call, *about)
        except NeedsValuesError:
            if device != "meta" or not any(t.is_meta for t in (*model.parameters(), *model.buffers())):
                raise
        # Constants of its own, which a model built on "meta" does not have, may be all that it asks for.
        return _audit_model(found.make("cpu"), found.name, call, *about)


@dataclass(frozen=True)
class _Call:
    """How a model is run: the arguments of its forward, the device, and which modules are asked about."""

    inputs: Inputs
    device: str
    at: tuple[str, ...]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return self.inputs.shapes


def _audit_model(
    model: nn.Module, name: str, call: _Call, digest: str | None = None, claimed: int | None = None
) -> Audit:
    graph = capture(model, *call.inputs.args, device=call.device, **call.inputs.kwargs)
    unknown = unknown_ops(graph)
    is_layer = layer_flags(graph)
    role = roles.roles(graph, is_layer)
    trunk = graph.without(role.ops(roles.MASK))
    notes = _stability(graph, capture(model, *call.inputs.args, device=call.device, **call.inputs.kwargs))
    if call.device != "meta":
        notes.append("for this input: the model ran on values")
    quantities: dict[str, int | float | None] = {} if claimed is None else {"claimed_depth": claimed}
    quantities |= _layers(graph, is_layer, role)
    longest = depth.longest_path(graph, is_layer)
    quantities |= _paths(graph, trunk, is_layer, longest)
    lengths = paths.path_lengths(graph, is_layer)
    quantities["n_paths"] = sum(lengths.values())
    mean = paths.mean_length(lengths)
    quantities["mean_path_length"] = None if mean is None else float(mean)
    by_role = _by_role(graph, is_layer, role)
    quantities |= _cost(graph, by_role)
    quantities |= _receptive(model, graph, role, call, notes)
    dead = _dead(graph)
    quantities |= {
        "dead_layers": len(dead),
        "dead_params": cost.n_params(graph, set(graph.params) - cost.read_params(graph)),
        "defined_params": cost.n_params(graph, graph.params),
    }
    quantities |= _unknown(unknown, role)
    by_role = [row | _unknown_in_role(row, unknown, role) for row in by_role]
    if any(op.params for op in unknown):
        lengths, longest = {}, None
    # Without an image there is no receptive field to be had: nothing is missing.
    is_partial = any(value is None for q, value in quantities.items() if _is_image(call) or "receptive" not in q)
    return Audit(
        target=name,
        input_shape=call.shapes[0],
        spec_digest=digest,
        status="partial" if unknown or is_partial else "complete",
        unknown_ops=tuple(dict.fromkeys(f"{op.name} in {op.module or 'the model'}" for op in unknown)),
        quantities={q: quantities[q] for q in QUANTITIES if q in quantities},
        roles=tuple(by_role),
        roles_found_by=role.how,
        modules=tuple(_attention_modules(graph, is_layer, role)),
        path_lengths=lengths,
        longest_path_layers=tuple(graph.ops[i].module for i in longest.ops if is_layer[i]) if longest else (),
        dead_modules=tuple(dead),
        notes=tuple(notes),
        fields=tuple(_fields_of(model, graph, role, call, path) for path in call.at),
        more_inputs=call.shapes[1:],
    )


def _is_image(call: _Call) -> bool:
    return len(call.shapes[0]) > 3


def _stability(first: Graph, second: Graph) -> list[str]:
    """What to say where the same call executes something else the second time."""
    for a, b in zip_longest(first.ops, second.ops):
        if a is None or b is None or (a.name, a.module, a.shapes) != (b.name, b.module, b.shapes):
            where = (a or b).module or "the model"
            return [f"the model changes between calls: two captures differ at {where}; the numbers are the first's"]
    return []


def _layers(graph: Graph, is_layer: Sequence[bool], role: roles.Roles) -> dict[str, int | float | None]:
    convolutions = convolution_indices(graph)
    return {
        "weighted_layers": sum(is_layer),
        "conv_layers": len(convolutions),
        **{f"conv_layers_{r}": sum(role.of[i] == r for i in convolutions) for r in roles.ROLES},
    }


def convolution_indices(graph: Graph) -> list[int]:
    """The weighted layers that are convolutions; one with a constant kernel (a blur) is none."""
    return [op.index for op in graph.ops if (rule := rule_for(op)) and rule.kind == "convolution" and rule.is_layer(op)]


def _paths(
    graph: Graph, trunk: Graph, is_layer: Sequence[bool], longest: depth.Path | None
) -> dict[str, int | float | None]:
    shortest = depth.shortest_path(graph, is_layer)
    within_trunk = depth.longest_path(trunk, is_layer)
    return {
        "trunk_depth": within_trunk.n_layers if within_trunk else None,
        "longest_path": longest.n_layers if longest else None,
        "shortest_path": shortest.n_layers if shortest else None,
    }


def _by_role(graph: Graph, is_layer: Sequence[bool], role: roles.Roles) -> list[dict[str, Any]]:
    macs, convolutions = cost.op_macs(graph), set(convolution_indices(graph))
    rows = []
    for name in roles.ROLES:
        ops = role.ops(name)
        rows.append(
            {
                "role": name,
                "weighted_layers": sum(is_layer[i] for i in ops),
                "conv_layers": sum(i in convolutions for i in ops),
                "params": cost.n_params(graph, cost.read_params(graph, ops)),
                "macs": sum(macs[i] for i in ops),
            }
        )
    return rows


def _cost(graph: Graph, by_role: Sequence[Mapping[str, Any]]) -> dict[str, int | float | None]:
    mask = next(row for row in by_role if row["role"] == roles.MASK)
    macs = sum(row["macs"] for row in by_role)
    return {
        "params": cost.n_params(graph, cost.read_params(graph)),
        "params_mask": mask["params"],
        "macs": macs,
        "macs_mask": mask["macs"],
        "flops": 2 * macs,
    }


def _receptive(
    model: nn.Module, graph: Graph, role: roles.Roles, call: _Call, notes: list[str]
) -> dict[str, int | float | None]:
    if not _is_image(call):
        notes.append("receptive field: the input is no image")
        return dict.fromkeys(FIELDS)
    target = receptive.feature_map(graph)
    if target is None:
        notes.append("receptive field: no operator keeps a map of positions")
        return dict.fromkeys(FIELDS)
    seen = fields_at(model, graph, target, role.ops(roles.MASK), call.inputs, call.device)
    found: dict[str, int | float | None] = {
        name: None if field is None else max(field.sides) for name, field in zip(FIELDS, seen.fields, strict=True)
    }
    if seen.union is not None and seen.union.height_px != seen.union.width_px:
        found |= {"receptive_field_h_px": seen.union.height_px, "receptive_field_w_px": seen.union.width_px}
    if seen.union is not None and seen.union.is_whole:
        notes.append("receptive field: the whole input")
    notes += [f"receptive field: {note}" for note in seen.notes]
    return found


def _fields_of(model: nn.Module, graph: Graph, role: roles.Roles, call: _Call, path: str) -> dict[str, Any]:
    """What the units of a module's result see, by the names of the quantities."""
    ran = [op.index for op in graph.ops if op.name != INPUT and f"{op.module}.".startswith(f"{path}.")]
    if not ran:
        known = dict.fromkeys(op.module for op in graph.ops if op.module)
        near = get_close_matches(path, known, n=3) or list(known)[:3]
        raise TargetError(f"no module {path!r} was executed (nearest: {', '.join(near)})")
    seen = (
        fields_at(model, graph, ran[-1], role.ops(roles.MASK), call.inputs, call.device)
        if _is_image(call)
        else Fields(notes=("the input is no image",))
    )
    sides = {n: None if f is None else list(f.sides) for n, f in zip(FIELDS, seen.fields, strict=True)}
    return {"module": path, **sides, "notes": list(seen.notes)}


Call = Inputs | Sequence[tuple[int, ...]]  # the arguments of a forward, or the shapes of its inputs with their batch

FIELDS = (
    "receptive_field_px", "receptive_field_trunk_px", "receptive_field_narrowest_px", "receptive_field_widest_px",
)  # fmt: skip


@dataclass(frozen=True)
class Fields:
    """What a unit sees: over all paths, with the masks removed, and along the paths that see least and most.

    None is what cannot be told; the notes say why.
    """

    union: ReceptiveField | None = None
    trunk: ReceptiveField | None = None
    narrowest: ReceptiveField | None = None
    widest: ReceptiveField | None = None
    notes: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[ReceptiveField | None, ...]:
        return self.union, self.trunk, self.narrowest, self.widest


def fields_at(
    model: nn.Module, graph: Graph, target: int, masks: Sequence[int], inputs: Call, device: str = "meta"
) -> Fields:
    """The receptive fields of an operator's units, on an input large enough that no border clips them.

    `masks`: the operators of the mask roles. `inputs`: those that the graph was captured with.
    """
    try:
        large, union, trunk = _over_all_paths(model, graph, target, masks, inputs, device)
    except receptive.NoReceptiveFieldError as error:
        return Fields(notes=(str(error),))
    if union is None:
        return Fields(trunk=trunk, notes=("every position is clipped, and the model takes no larger input",))
    try:
        single = receptive.path_fields(large, target)
        assert single is not None  # the field over all paths was found at some position that is not clipped
    except receptive.NoReceptiveFieldError as error:
        return Fields(union, trunk, notes=(f"along single paths: {error}",))
    sizes, own = large.input_shapes[0][-2:], Inputs.of(inputs).shapes[0][-2:]
    narrowest, widest = (_told(f, sizes, own, large is not graph) for f in (single.narrowest, single.widest))
    return Fields(union, trunk, narrowest, widest)


def _over_all_paths(
    model: nn.Module, graph: Graph, target: int, masks: Sequence[int], inputs: Call, device: str
) -> tuple[Graph, ReceptiveField | None, ReceptiveField | None]:
    """A graph of the model on an input with room, and what a unit sees there, with the masks and without."""
    room = ROOM
    while True:
        large = unclipped(model, graph, target, inputs, device, room)
        seen, trunk = (receptive.receptive_field(g, target) for g in (large, large.without(masks)))
        sizes = large.input_shapes[0][-2:]
        if (_is_told(seen, sizes) and _is_told(trunk, sizes)) or large is graph or room > MOST_ROOM:
            break
        room *= 4
    has_room = large is not graph
    own = Inputs.of(inputs).shapes[0][-2:]
    return large, _told(seen, sizes, own, has_room), _told(trunk, sizes, own, has_room)


def _is_told(field: ReceptiveField | None, sizes: Sequence[int]) -> bool:
    """A window takes a small part of an input with room, a global operator all of it; between the two, more room."""
    return field is not None and all(s == n or 2 * s <= n for s, n in zip(field.sides, sizes, strict=True))


def _told(
    field: ReceptiveField | None, sizes: Sequence[int], own: Sequence[int], has_room: bool
) -> ReceptiveField | None:
    if field is None:
        return None
    whole = [side == n or (has_room and 2 * side > n) for side, n in zip(field.sides, sizes, strict=True)]
    height, width = (n if w else side for w, side, n in zip(whole, field.sides, own, strict=True))
    return ReceptiveField(height, width, any(whole))


# A receptive field is looked for on an input this many times its rough bound: enough positions stay free of the
# border to meet every phase of an up-sampling that drifts against its map (align-corners).
ROOM = 3
MOST_ROOM = 48


def unclipped(
    model: nn.Module, graph: Graph, target: int, inputs: Call, device: str = "meta", room: int = ROOM
) -> Graph:
    """The model captured again, on inputs large enough that the target's central units see no border.

    All inputs that are images grow alike. A model that takes its own input size alone is captured up to where it
    refuses. If that is ahead of the target, or if something else runs on a larger input, the graph as it was comes
    back. A model that was run on values is first tried without: a large input costs nothing then.
    """
    inputs = Inputs.of(inputs)
    shapes = inputs.shapes
    need = room * receptive.estimated_side(graph, target)
    times = max(-(-need // min(shapes[0][2:])), 1)
    grown = inputs.with_shapes([(*s[:2], *(times * n for n in s[2:])) if len(s) > 3 else s for s in shapes])
    for place in dict.fromkeys(("meta", device)):
        try:
            large = capture(model, *grown.args, device=place, **grown.kwargs)
        except CaptureError as error:
            if error.graph is None:
                continue
            large = error.graph
        ran = [[(op.name, op.module) for op in g.ops[: target + 1]] for g in (graph, large)]
        if ran[0] == ran[1] and receptive.grows_with_input(graph, large, target):
            return large
    return graph


def _dead(graph: Graph) -> list[str]:
    read = cost.read_params(graph)
    return [
        m.path
        for m in graph.modules
        if not m.is_executed and m.params and m.is_weighted and not read.intersection(m.params)
    ]


# What an operator without a rule could change: a cost, and with parameters a count of layers.
COSTS = ("macs", "macs_mask", "flops")
LAYERS = (
    "weighted_layers", "conv_layers", "conv_layers_trunk", "conv_layers_mask", "conv_layers_shortcut", "trunk_depth",
    "longest_path", "shortest_path", "mean_path_length",
)  # fmt: skip


def _unknown(unknown: Sequence[Op], role: roles.Roles) -> dict[str, None]:
    """The quantities that operators without a rule touch. One of a single role is touched by operators there."""
    touched: dict[str, None] = {}
    for op in unknown:
        elsewhere = {f"_{other}" for other in roles.ROLES if other != role.of[op.index]}
        for quantity in (*COSTS, *(LAYERS if op.params else ())):
            if not any(quantity.endswith(name) for name in elsewhere):
                touched[quantity] = None
    return touched


def _unknown_in_role(row: Mapping[str, Any], unknown: Sequence[Op], role: roles.Roles) -> dict[str, None]:
    here = [op for op in unknown if role.of[op.index] == row["role"]]
    return {k: None for k in row if k in _unknown(here, role)}


def _attention_modules(graph: Graph, is_layer: Sequence[bool], role: roles.Roles) -> list[dict[str, Any]]:
    """Each module that holds a mask: its longest paths, whole, without the mask, and in either branch alone."""
    inside: dict[str, list[Op]] = {
        op.module.split(".mask", 1)[0]: []
        for op in graph.ops
        if role.of[op.index] == roles.MASK and ".mask" in op.module
    }
    for op in graph.ops:
        parts = op.module.split(".")
        for owner in (".".join(parts[:n]) for n in range(1, len(parts) + 1)):
            if owner in inside:
                inside[owner].append(op)
    return [_attention_module(owner, ops, is_layer, role) for owner, ops in inside.items()]


def _attention_module(owner: str, ops: Sequence[Op], is_layer: Sequence[bool], role: roles.Roles) -> dict[str, Any]:
    mask = [op for op in ops if role.of[op.index] == roles.MASK]
    rest = [op for op in ops if role.of[op.index] != roles.MASK]
    branch = [op for op in rest if op.module.startswith(f"{owner}.trunk.")]
    return {
        "module": owner,
        "longest_path": depth.longest_within(ops, is_layer),
        "trunk_path": depth.longest_within(rest, is_layer),
        "branch_path": depth.longest_within(branch, is_layer),
        "mask_path": depth.longest_within(mask, is_layer),
        "mask_layers": sum(is_layer[op.index] for op in mask),
        "trunk_layers": sum(is_layer[op.index] for op in rest),
    }


def measure_table(targets: Iterable[str | NetworkSpec], quantities: Iterable[str]) -> pd.DataFrame:
    """A tidy table: target, quantity, value, unit; one row for every target and quantity."""
    import pandas as pd

    wanted = list(quantities)
    rows = [
        {"target": result.target, "quantity": q, "value": result.quantities.get(q), "unit": QUANTITIES[q].unit}
        for result in map(cached_audit, targets)
        for q in wanted
    ]
    return pd.DataFrame(rows, columns=["target", "quantity", "value", "unit"]).astype({"value": object})


def cached_audit(target: str | NetworkSpec) -> Audit:
    """The audit of a network on its own input; a structure is captured once in a process."""
    spec = catalog.named(target) if isinstance(target, str) else target
    return _cached(spec)


@functools.lru_cache(maxsize=512)
def _cached(spec: NetworkSpec) -> Audit:
    return audit(spec)


@functools.lru_cache(maxsize=128)
def captured(spec: NetworkSpec) -> tuple[Network, Graph]:
    """The network of a spec on the meta device, and the graph of one pass on its own input; kept for the next call."""
    network = build(spec, device="meta")
    return network, capture(network, (1, *spec.input_shape))
