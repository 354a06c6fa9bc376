"""From a spec, a name or any model to its audit: every quantity of a captured network."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

from torch import nn

from resattn.graph.errors import TRY_CPU, NeedsValuesError
from resattn.graph.inputs import Inputs
from resattn.measures import depth, roles
from resattn.measures.captured import Captured, PartError, captured, extended
from resattn.measures.quantities import QUANTITIES, Absent
from resattn.networks.spec import NetworkSpec
from resattn.rules.rule import Rule
from resattn.rules.table import RULES
from resattn.targets import TargetError, resolved


@dataclass(frozen=True, repr=False)
class Audit:
    """The numbers of one network. A quantity that depends on an unknown operator is None, and `status` is partial."""

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
    # Receptive fields at the modules of `at`; and the shapes of inputs after the first.
    fields: tuple[Mapping[str, Any], ...] = ()
    more_inputs: tuple[tuple[int, ...], ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "path_lengths": {str(k): v for k, v in self.path_lengths.items()}}

    def __repr__(self) -> str:
        return f"Audit({self.target}: {self.status}, input {'x'.join(map(str, self.input_shape))})"

    def __str__(self) -> str:
        """One line for each quantity, then notes; at most 80 columns wide."""
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
        """For a notebook: each quantity with its definition, and notes."""
        rows = "".join(
            f'<tr><th scope="row" style="text-align:left">{escape(QUANTITIES[q].label)}</th>'
            f"<td>{_number(n)}</td>"
            f'<td style="text-align:left">{escape(QUANTITIES[q].definition)}</td></tr>'
            for q, n in self.quantities.items()
        )
        shape = " x ".join(map(str, self.input_shape))
        facts = [self.status, f"input {shape}", f"masks found by {self.roles_found_by}", *self.notes]
        facts += [f"no rule for {op}" for op in self.unknown_ops]
        return (
            f"<b>{escape(self.target)}</b><table><tbody>{rows}</tbody></table><small>{escape('; '.join(facts))}</small>"
        )


def _number(value: int | float | None) -> str:
    return "unknown" if value is None else f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"


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

    `args`, `kwargs`: example tensors as the forward takes them, with their batch; or shapes without it, such as
    `(3, 224, 224)`, where the batch is 1. A shape of integers, such as token ids, is an `Indices`. A spec brings
    its own input shape.
    `settings` (fields of a named network), `device`, `at` and `rules` are options of the audit; every other keyword is
    passed to the forward. On "meta" nothing is computed; a forward that needs values is run on the CPU instead, and
    the notes say so. `at`: module paths; the receptive fields of their units are
    also reported. `rules`: rows of the operator table for this call only, by names such as `mylib::scan`.
    Raises: TargetError, SpecError, CaptureError, RuleError.
    """
    how: dict[str, Any] = {"rules": extended(rules) if rules else RULES}
    with resolved(target, args, kwargs, settings=settings) as found:
        spec, inputs = found.spec, found.inputs
        if spec and device == "meta" and not rules and inputs == Inputs.of([spec.input_shape], batch=(1,)):
            return audit_of(captured(spec), at)
        how |= {"name": found.name, "spec": spec, **inputs.kwargs}
        model = found.make(device)
        try:
            return audit_of(Captured.of(model, *inputs.args, device=device, **how), at)
        except NeedsValuesError as error:
            size = 4 * sum(p.numel() for p in model.parameters())
            if device != "meta" or size > MOST_BYTES:
                raise
            reason = str(error).replace(TRY_CPU, "")
        model = found.make("cpu")
        if any(t.is_meta for t in (*model.parameters(), *model.buffers())):
            raise NeedsValuesError(f"{reason}; the model has no values: it was built on the device 'meta'")
        how["why_values"] = reason
        return audit_of(Captured.of(model, *inputs.args, device="cpu", **how), at)


def audit_of(network: Captured, at: Sequence[str] = ()) -> Audit:
    """The audit of a captured network. `at`: module paths whose units' receptive fields are given too."""
    changes_at = network.instability  # first of all: a pass on another input in between could hide it
    values = {q.id: q.value(network) for q in QUANTITIES.values()}
    quantities = {name: value for name, value in values.items() if not isinstance(value, Absent)}
    layers_known = not any(op.params for op in network.unknown)
    # Without an image there is no receptive field, so none is missing.
    needed = [value for name, value in quantities.items() if network.is_image or "receptive" not in name]
    longest = network.longest if layers_known else None
    return Audit(
        target=network.name,
        input_shape=network.shapes[0],
        spec_digest=network.spec.digest if network.spec else None,
        status="partial" if network.unknown or None in needed else "complete",
        unknown_ops=tuple(dict.fromkeys(f"{op.name} in {op.module or 'the model'}" for op in network.unknown)),
        quantities=quantities,
        roles=tuple(_by_role(network, role) for role in roles.ROLES),
        roles_found_by=network.roles.how,
        modules=tuple(_attention_module(network, owner) for owner in network.attention_modules),
        path_lengths=network.path_lengths if layers_known else {},
        longest_path_layers=tuple(network.graph.ops[i].module for i in longest.ops if network.is_layer[i])
        if longest
        else (),
        dead_modules=network.dead,
        notes=tuple(_notes(network, changes_at)),
        fields=tuple(_fields_of(network, path) for path in at),
        more_inputs=network.shapes[1:],
    )


def _notes(network: Captured, changes_at: str) -> Iterator[str]:
    if changes_at:
        yield f"the model changes between calls: two captures differ at {changes_at}; the numbers are the first's"
    if network.why_values:
        yield f"captured on the CPU, for input values drawn from a fixed seed: {network.why_values}"
    elif network.device != "meta":
        yield "for this input: the model ran on values"
    fields = network.fields
    if fields.union is not None and fields.union.is_whole:
        yield "receptive field: the whole input"
    yield from (f"receptive field: {note}" for note in fields.notes)


def _by_role(network: Captured, role: str) -> dict[str, Any]:
    ops = network.roles.ops(role)
    unknown = [op for op in network.unknown if network.role_of(op) == role]
    layers_known = not any(op.params for op in unknown)
    layers = network.constant_layers if role == roles.TRUNK else []
    convolutions = [op for op in layers if op.kind == "convolution"]
    more_macs = network.macs_constant if role == roles.TRUNK else 0
    return {
        "role": role,
        "weighted_layers": sum(network.is_layer[i] for i in ops) + len(layers) if layers_known else None,
        "conv_layers": sum(i in network.convolutions for i in ops) + len(convolutions) if layers_known else None,
        "params": network.params(ops, constants=role == roles.TRUNK),
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
