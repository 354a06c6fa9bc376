"""From a spec, a name or any model to its audit: every quantity of a captured network."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import nn

from resattn.graph.errors import NeedsValuesError
from resattn.graph.graph import Indices
from resattn.measures import depth, roles
from resattn.measures.captured import Captured, PartError, captured, extended
from resattn.measures.quantities import QUANTITIES, Absent
from resattn.networks import catalog, classic
from resattn.networks.network import build
from resattn.networks.spec import NetworkSpec, override
from resattn.rules.rule import Rule
from resattn.rules.table import RULES


class TargetError(ValueError):
    """What was to be measured is no model; the message says what was found and what would do."""


@dataclass(frozen=True)
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

    def _repr_html_(self) -> str:
        """For a notebook: each quantity with its definition, and what there is to say about the count."""
        rows = "".join(
            f'<tr><th scope="row" style="text-align:left">{escape(QUANTITIES[q].label)}</th>'
            f"<td>{'unknown' if n is None else f'{n:,.2f}' if isinstance(n, float) else f'{n:,}'}</td>"
            f'<td style="text-align:left">{escape(QUANTITIES[q].definition)}</td></tr>'
            for q, n in self.quantities.items()
        )
        shape = " x ".join(map(str, self.input_shape))
        said = [self.status, f"input {shape}", f"masks found by {self.roles_found_by}", *self.notes]
        said += [f"no rule for {op}" for op in self.unknown_ops]
        return (
            f"<b>{escape(self.target)}</b><table><tbody>{rows}</tbody></table><small>{escape('; '.join(said))}</small>"
        )


def audit(
    target: str | NetworkSpec | nn.Module,
    *,
    input_shape: Sequence[int] | None = None,
    more_inputs: Sequence[Sequence[int]] = (),
    settings: Mapping[str, Any] | None = None,
    device: str = "meta",
    at: Sequence[str] = (),
    rules: Mapping[str, Rule] | None = None,
) -> Audit:
    """Every quantity of `resattn.measures.quantities` for a named network, a spec, a model, or `module:callable`.

    `input_shape`: channels, height, width; a spec brings its own. `more_inputs`: the shapes of a forward's further
    arguments; one of whole numbers, as token ids are, is an `Indices`. The batch is 1 for all. On "meta" nothing is
    computed. `at`: modules whose units' receptive fields are reported too. `rules`: rows of the operator table for
    this call alone, by names such as `mylib::scan`.
    Raises: TargetError, SpecError, CaptureError, RuleError.
    """
    if isinstance(target, str) and catalog.is_name(target):
        target = override(catalog.named(target), dict(settings or {}))
    elif settings:
        raise TargetError(f"only a named network has fields to set, and {_called(target)} is none")
    if isinstance(target, NetworkSpec):
        input_shape = input_shape or target.input_shape
    elif input_shape is None:
        raise TargetError(f"{_called(target)} needs an input shape: channels, height, width")
    shapes = tuple(_batched(shape) for shape in (input_shape, *more_inputs))
    how: dict[str, Any] = {"device": device, "rules": extended(rules) if rules else RULES}
    if isinstance(target, NetworkSpec):
        if shapes == ((1, *target.input_shape),) and device == "meta" and not rules:
            return audit_of(captured(target), at)
        network = build(target, device=device)
        return audit_of(Captured.of(network, *shapes, name=target.name, spec=target, **how), at)
    if isinstance(target, nn.Module):
        return audit_of(Captured.of(target, *shapes, name=_called(target), **how), at)
    model = model_of(target, device)
    try:
        return audit_of(Captured.of(model, *shapes, name=target, **how), at)
    except NeedsValuesError:
        if device != "meta" or not any(t.is_meta for t in (*model.parameters(), *model.buffers())):
            raise
    # Constants of its own, which a model built on "meta" does not have, may be all that it asks for.
    return audit_of(Captured.of(model_of(target, "cpu"), *shapes, name=target, **how), at)


def _batched(shape: Sequence[int]) -> tuple[int, ...]:
    return Indices((1, *shape)) if isinstance(shape, Indices) else (1, *shape)


def _called(target: Any) -> str:
    return target if isinstance(target, str) else getattr(target, "name", type(target).__name__)


def model_of(target: str, device: str = "meta") -> nn.Module:
    """The model that `package.module:callable`, `path/to/file.py:callable` or `timm:NAME` stands for.

    It is built on the meta device, where weights take no memory; where its constructor needs values, on the CPU.
    Raises: TargetError.
    """
    where, _, name = target.rpartition(":")
    make = classic.foreign(where, name) if where in classic.LIBRARIES else _imported(where, name)
    if isinstance(make, nn.Module):
        return make
    needed = [
        p.name
        for p in inspect.signature(make).parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if needed:
        raise TargetError(f"{target} needs arguments ({', '.join(needed)}); a callable without arguments is expected")
    try:
        with torch.device(device):
            model = make()
    except (Exception, SystemExit) as first:
        if device != "meta":
            raise TargetError(f"{target} raised {type(first).__name__}: {first}") from first
        try:
            model = make()
        except (Exception, SystemExit) as error:
            raise TargetError(f"{target} raised {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise TargetError(f"{target} returned a {type(model).__name__}, not a torch.nn.Module")
    return model


def _imported(where: str, name: str) -> Callable[[], Any]:
    try:
        if where.endswith(".py"):
            path = Path(where)
            if not path.is_file():
                raise TargetError(f"no file {where}")
            module = _run(path)
        else:
            module = importlib.import_module(where)
    except TargetError:
        raise
    except (Exception, SystemExit) as error:
        raise TargetError(f"{where} cannot be imported: {type(error).__name__}: {error}") from error
    found = getattr(module, name, None)
    if not callable(found):
        known = [
            n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", None) == module.__name__
        ]
        raise TargetError(f"{where} has no callable {name!r} (it has: {', '.join(known) or 'none'})")
    return found


def _run(path: Path) -> ModuleType:
    """The module of a file, which may import its neighbours as it could when run as a script."""
    # Not under its own name, which may be that of a module in use; dataclasses look theirs up while they are made.
    spec = importlib.util.spec_from_file_location(f"resattn_target_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with mock.patch.object(sys, "path", [str(path.parent.resolve()), *sys.path]):
        sys.modules[module.__name__] = module
        spec.loader.exec_module(module)
    return module


def audit_of(network: Captured, at: Sequence[str] = ()) -> Audit:
    """The audit of a captured network. `at`: module paths whose units' receptive fields are given too."""
    changes_at = network.instability  # first of all: a pass on another input in between could hide it
    values = {q.id: q.value(network) for q in QUANTITIES.values()}
    quantities = {name: value for name, value in values.items() if not isinstance(value, Absent)}
    layers_known = not any(op.params for op in network.unknown)
    # Without an image there is no receptive field to be had: nothing is missing.
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
    if network.device != "meta":
        yield "for this input: the model ran on values"
    fields = network.fields
    if fields.union is not None and fields.union.is_whole:
        yield "receptive field: the whole input"
    yield from (f"receptive field: {note}" for note in fields.notes)


def _by_role(network: Captured, role: str) -> dict[str, Any]:
    ops = network.roles.ops(role)
    unknown = [op for op in network.unknown if network.roles.of[op.index] == role]
    layers_known = not any(op.params for op in unknown)
    return {
        "role": role,
        "weighted_layers": sum(network.is_layer[i] for i in ops) if layers_known else None,
        "conv_layers": sum(i in network.convolutions for i in ops) if layers_known else None,
        "params": network.params(ops),
        "macs": sum(network.macs[i] for i in ops) if not unknown else None,
    }


def _fields_of(network: Captured, path: str) -> dict[str, Any]:
    """What the units of a module's result see, by the names of the quantities."""
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
