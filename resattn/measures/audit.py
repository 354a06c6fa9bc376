"""The audit of a spec, a name or any model: every quantity of the captured network."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

from torch import nn

from resattn.graph.calls import calling_through
from resattn.graph.capture import without_collection
from resattn.graph.errors import TRY_CPU, NeedsValuesError
from resattn.graph.inputs import Inputs
from resattn.measures import depth, roles
from resattn.measures.captured import Captured, PartError, captured, extended
from resattn.measures.quantities import QUANTITIES, Absent
from resattn.measures.roles import NONE
from resattn.networks.spec import NetworkSpec
from resattn.rules.rule import Rule, RuleError, holds_weights, is_packed
from resattn.rules.table import RULES
from resattn.targets import TargetError, resolved

COMPLETE, PARTIAL, UNAVAILABLE = "complete", "partial", "unavailable"

T = TypeVar("T")

if TYPE_CHECKING:
    from resattn.forecast.scaling import Scaling
    from resattn.forecast.training import Training
    from resattn.instruments.counters import Counted
    from resattn.measures.used import Used
    from resattn.views.table import Table
    from resattn.views.tree import Node


@dataclass(frozen=True, repr=False)
class Audit:
    """The numbers of one network. A quantity that cannot be given is None.

    `statuses`: for each quantity "complete"; "partial" if an operator without a rule hides a part of it (`at_least`
    then has its lower bound); or "unavailable" (the notes say why). `status` is for costs, layers, depth and paths
    together: "partial" if one of them is not complete.
    """

    target: str
    input_shape: tuple[int, ...]
    spec_digest: str | None
    status: str
    unknown_ops: tuple[str, ...]
    quantities: Mapping[str, int | float | None]
    statuses: Mapping[str, str]
    at_least: Mapping[str, int | float]
    roles: tuple[Mapping[str, Any], ...]
    roles_found_by: str
    modules: tuple[Mapping[str, Any], ...]
    path_lengths: Mapping[int, int]
    longest_path_layers: tuple[str, ...]
    dead_modules: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())
    # Receptive fields at the modules of `at`; and the shapes of inputs after the first.
    fields: tuple[Mapping[str, Any], ...] = ()
    more_inputs: tuple[tuple[int, ...], ...] = ()
    # What `used` measures again, on values: the target and how it was called.
    asked: Callable[..., Used] | None = field(default=None, repr=False, compare=False)

    def used(self, **options: Any) -> Used:
        """The gradient's energy by path length for the same target: see `resattn.measures.used`. Raises: UsedError."""
        if self.asked is None:
            from resattn.measures.used import UsedError

            raise UsedError(f"{self.target}: an audit of a captured network alone; call resattn.audit for the model")
        return self.asked(**options)

    # What the numbers were computed from; no part of the record.
    network: Captured | None = field(default=None, repr=False, compare=False)

    def to_json(self, *, tree: bool = False) -> dict[str, Any]:
        """The record of the audit for JSON. `tree`: with a row for each module, which `diff` compares."""
        record = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("network", "asked")}
        record["path_lengths"] = {str(k): v for k, v in self.path_lengths.items()}
        if tree and self.network is not None:
            record["tree"] = _room("views.tree").rows(self.tree)
        return record

    @property
    def about_masks(self) -> str:
        return "no masks" if self.roles_found_by == NONE else f"masks found by {self.roles_found_by}"

    def shown(self, quantity: str) -> str:
        """A quantity as text: its value, its lower bound, or "unavailable"; "" if the network does not have it."""
        if quantity in self.at_least:
            return f"at least {_number(self.at_least[quantity])}"
        value = self.quantities.get(quantity)
        return _number(value) if value is not None else self.statuses.get(quantity, "")

    def __repr__(self) -> str:
        return f"Audit({self.target}: {self.status}, input {'x'.join(map(str, self.input_shape))})"

    def __str__(self) -> str:
        """Totals, the module tree and notes, to the width of the terminal."""
        return _room("views.shown").text(self)  # type: ignore[no-any-return]

    def _repr_html_(self) -> str:
        """For a notebook: the module tree, each quantity with its definition, and notes."""
        return _room("views.shown").audit_html(self)  # type: ignore[no-any-return]

    @property
    def captured(self) -> Captured:
        """The captured network. Raises: LookupError for an audit that was not made by `audit`."""
        if self.network is None:
            raise LookupError(f"the audit of {self.target} does not hold the network that it was made from")
        return self.network

    @cached_property
    def tree(self) -> Node:
        """The root of the module tree. Parameters and multiply-adds of its modules sum to the totals."""
        return _room("views.tree").tree(self.captured)  # type: ignore[no-any-return]

    def by_module(self, depth: int | None = None, *, within: str = "", fold: bool = False) -> Table:
        """One row for each module down to a depth (0: the whole model), with `.to_markdown()`, `.to_latex()`,
        `.to_csv()` and `.to_html()`. Operators outside every child of a module have a row of their own.

        `within`: only this module. `fold`: one row for consecutive equal modules, with the numbers of each.
        Raises: PartError with the nearest names.
        """
        node = self.tree.find(within) if within else self.tree
        return _room("views.shown").table(node, depth=depth, fold=fold)  # type: ignore[no-any-return]

    def counted_like(self, tool: str) -> Counted:
        """The number that another tool prints for this network, by that tool's rules, with a sentence for a paper.

        Raises: ToolError for a tool whose rules are unknown.
        """
        return _room("instruments.counters").counted_like(self.captured, tool)  # type: ignore[no-any-return]

    def training(self, **options: Any) -> Training:
        """Cost and memory of one step of training, without running it on values. Raises: TrainingError.

        `options`: `batch`, `optimizer` ("sgd", "adamw" or a function of the parameters), `loss` (from the result to a
        scalar), `device`, `cuda` (compare with the peak of a GPU); see `resattn.forecast.training`.
        """
        return _room("forecast.training").training(self.captured, **options)  # type: ignore[no-any-return]

    def scaling(self) -> Scaling:
        """Multiply-adds and activations as exact formulas of batch, height and width, or length. `.at(H=..., W=...)`
        gives their values. Raises: ScalingError.
        """
        return _room("forecast.scaling").scaling(self.captured)  # type: ignore[no-any-return]

    def to_html(self, used: Used | None = None) -> str:
        """One HTML page that loads nothing else: drawing, longest path, path lengths and module tree.

        `used`: also show the gradient's energy beside the path lengths.
        """
        return _room("views.page").page(self, used)  # type: ignore[no-any-return]


MOST_DIGITS = 15  # of a number that is printed in full: a deep network has more paths than a line has room for


def _number(value: int | float) -> str:
    if isinstance(value, int) and abs(value) >= 10**MOST_DIGITS:
        return f"{Decimal(value):.2e}"
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"


def _room(name: str) -> Any:
    """A module of a room above this one, opened when a method of an audit is called: an audit is the door to them."""
    return importlib.import_module(f"resattn.{name}")


MOST_BYTES = 2**32  # of the parameters of a model that runs on values without being asked to


def audit(
    target: str | NetworkSpec | nn.Module,
    *args: Any,
    settings: Mapping[str, Any] | None = None,
    device: str = "meta",
    at: Sequence[str] = (),
    rules: Mapping[str, Rule] | None = None,
    **kwargs: Any,
) -> Audit:
    """Every quantity of `resattn.measures.quantities` for a model, a spec, a named network or `module:callable`.

    `args`, `kwargs`: example tensors as the forward takes them, with their batch; or shapes without it, such as `(3,
    224, 224)`, for a batch of 1. An `Indices` is the shape of an input of integers, such as token ids. A spec has its
    own input shape.
    `settings` (fields of a named network), `device`, `at` and `rules` are options of the audit; every other keyword is
    passed to the forward. On "meta" nothing is computed; a forward that needs values runs on the CPU instead, and the
    notes say so. `at`: module paths whose receptive fields are also reported. `rules`: rows of the operator table for
    this call only, by names such as `mylib::scan`.
    Raises: TargetError, SpecError, CaptureError, RuleError.
    """
    asked = partial(_used, target, *args, settings=settings, rules=rules, **kwargs)
    return replace(_audit(target, args, settings, device, at, rules, kwargs), asked=asked)


def _used(*args: Any, **kwargs: Any) -> Used:
    from resattn.measures.used import used  # imported on use, which is rare: an import takes longer than some audits

    return used(*args, **kwargs)


def _audit(
    target: str | NetworkSpec | nn.Module, args: Sequence[Any], settings: Mapping[str, Any] | None, device: str,
    at: Sequence[str], rules: Mapping[str, Rule] | None, kwargs: Mapping[str, Any],
) -> Audit:  # fmt: skip
    how: dict[str, Any] = {"rules": extended(rules) if rules else RULES}
    with (
        without_collection() if device == "meta" else nullcontext(),
        resolved(target, args, kwargs, settings=settings) as found,
    ):
        spec, inputs = found.spec, found.inputs
        if spec and device == "meta" and not rules and inputs == Inputs.of([spec.input_shape], batch=(1,)):
            with calling_through():
                return audit_of(captured(spec), at)
        how |= {"name": found.name, "spec": spec, **inputs.kwargs}
        model = found.make(device)
        try:
            with calling_through():
                return audit_of(Captured.of(model, *inputs.args, device=device, **how), at)
        except NeedsValuesError as error:
            if device != "meta":
                raise
            refuse_large(model, error)
            reason = str(error).replace(TRY_CPU, "")
        model = found.make("cpu")
        if any(t.is_meta for t in (*model.parameters(), *model.buffers())):
            raise NeedsValuesError(f"{reason}; the model has no values: it was built on the device 'meta'")
        how["why_values"] = reason
        return audit_of(Captured.of(model, *inputs.args, device="cpu", **how), at)


def refuse_large(model: nn.Module, error: NeedsValuesError) -> None:
    """Raises: NeedsValuesError for a model with too many parameters to run on values without being asked to."""
    size = 4 * sum(p.numel() for p in model.parameters())
    if size > MOST_BYTES:
        why = f"its parameters take {size / 2**30:.1f} GiB, and up to {MOST_BYTES >> 30} GiB run on values unasked"
        raise NeedsValuesError(f"{error}; {why}") from error


def audit_of(network: Captured, at: Sequence[str] = ()) -> Audit:
    """The audit of a captured network. `at`: module paths whose receptive fields are also reported.

    A quantity that fails is unavailable, with the reason in the notes; the others are not affected.
    Raises: TargetError for an unknown module path, RuleError for a user's row that fails.
    """
    notes: list[str] = []

    def kept(what: str, make: Callable[[], T], otherwise: T) -> T:
        try:
            return make()
        except RuleError as error:
            if network.rules is not RULES:
                raise
            notes.append(f"{what}: {error}")
        except Exception as error:
            notes.append(f"{what}: {type(error).__name__}: {error}".rstrip(": "))
        return otherwise

    # First of all: a pass on another input in between could hide a change.
    changes_at = kept("a second capture", lambda: network.instability, "")
    quantities: dict[str, int | float | None] = {}
    statuses: dict[str, str] = {}
    at_least: dict[str, int | float] = {}
    for name, quantity in QUANTITIES.items():
        value = kept(name, partial(quantity.of, network), None)
        if isinstance(value, Absent):
            continue
        is_hidden = value is not None and kept(name, partial(quantity.is_hidden, network), True)
        quantities[name] = None if is_hidden else value
        statuses[name] = UNAVAILABLE if value is None else PARTIAL if is_hidden else COMPLETE
        if is_hidden and value is not None:
            at_least[name] = value
    needed = (status for name, status in statuses.items() if not QUANTITIES[name].is_field)
    layers_known = statuses["longest_path"] == COMPLETE
    has_path = kept("longest_path", lambda: network.longest is not None, True)
    return Audit(
        target=network.name,
        input_shape=network.shapes[0],
        spec_digest=network.spec.digest if network.spec else None,
        status=COMPLETE if set(needed) == {COMPLETE} else PARTIAL,
        unknown_ops=tuple(dict.fromkeys(op.place for op in network.unknown)),
        quantities=quantities,
        statuses=statuses,
        at_least=at_least,
        roles=kept("roles", lambda: tuple(_by_role(network, role) for role in roles.ROLES), ()),
        roles_found_by=kept("roles", lambda: network.roles.how, NONE),
        modules=kept(
            "modules", lambda: tuple(_attention_module(network, owner) for owner in network.attention_modules), ()
        ),
        path_lengths=network.path_lengths if layers_known else {},
        longest_path_layers=_layers_of(network, network.longest) if layers_known else (),
        dead_modules=kept("dead modules", lambda: network.dead, ()),
        fields=tuple(_fields_of(network, path) for path in at),
        notes=tuple(dict.fromkeys((*_notes(network, changes_at, has_path), *notes))),
        more_inputs=network.shapes[1:],
        network=network,
    )


def _layers_of(network: Captured, path: depth.Path | None) -> tuple[str, ...]:
    return tuple(network.graph.ops[i].module for i in path.ops if network.is_layer[i]) if path else ()


def _notes(network: Captured, changes_at: str, has_path: bool) -> Iterator[str]:
    if changes_at:
        yield f"the model changes between calls: two captures differ at {changes_at}; the numbers are the first's"
    if network.why_values:
        yield f"captured on the CPU, for input values drawn from a fixed seed: {network.why_values}"
    elif network.device != "meta":
        yield "for this input: the model ran on values"
    spec, shape = network.spec, network.shapes[0][1:]
    if spec and spec.name.startswith("port:") and shape != spec.input_shape:
        own = "x".join(map(str, spec.input_shape))
        yield f"the code of this port has sizes of maps that are fixed for an input of {own}: it may not take this one"
    if not has_path:
        yield "no output depends on an input: there is no path"
    fields = network.fields
    if fields.union is not None and fields.union.is_whole:
        yield "receptive field: the whole input"
    yield from (f"receptive field: {note}" for note in fields.notes)


def _by_role(network: Captured, role: str) -> dict[str, Any]:
    ops = network.roles.ops(role)
    unknown = [op for op in network.unknown if network.role_of(op) == role]
    layers_known = not any(map(holds_weights, unknown))
    layers = network.constant_layers if role == roles.TRUNK else []
    convolutions = [op for op in layers if op.kind == "convolution"]
    more_macs = network.macs_constant if role == roles.TRUNK else 0
    params = network.params(ops, constants=role == roles.TRUNK)
    return {
        "role": role,
        "weighted_layers": sum(network.is_layer[i] for i in ops) + len(layers) if layers_known else None,
        "conv_layers": sum(i in network.convolutions for i in ops) + len(convolutions) if layers_known else None,
        "params": params if not any(map(is_packed, unknown)) else None,
        "macs": sum(network.macs[i] for i in ops) + more_macs if not unknown else None,
    }


def _fields_of(network: Captured, path: str) -> dict[str, Any]:
    """The receptive fields of the units of a module's result, by the names of the quantities."""
    try:
        last = network.inside(path)[-1]
    except PartError as error:
        raise TargetError(str(error)) from None
    seen = network.fields_at(last.index)
    sides = {n: None if f is None else list(f.sides) for n, f in zip(FIELDS, seen.fields, strict=True)}
    return {"module": path, **sides, "notes": list(seen.notes)}


def _attention_module(network: Captured, owner: str) -> dict[str, Any]:
    """The longest paths in a module that holds a mask: all of it, without the mask, and in either branch alone."""
    ops, is_layer = network.inside(owner), network.is_layer
    mask = [op for op in ops if network.roles.of[op.index] == roles.MASK]
    rest = [op for op in ops if network.roles.of[op.index] != roles.MASK]
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


FIELDS = (
    "receptive_field_px", "receptive_field_trunk_px", "receptive_field_narrowest_px", "receptive_field_widest_px",
)  # fmt: skip
