"""A captured network, and the values that are computed from its graph."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from itertools import zip_longest
from typing import Any

from torch import nn

from resattn.graph import capture as recording
from resattn.graph.capture import Log, without_collection
from resattn.graph.graph import INPUT, Graph, Op
from resattn.graph.inputs import Inputs
from resattn.graph.walk import Index
from resattn.measures import cost, depth, paths, receptive, roles
from resattn.measures.depth import Path
from resattn.measures.fields import ROOM, Enlarged, Fields, enlarged_by, fields_at, reported_for, times_for
from resattn.measures.positionwise import positionwise
from resattn.measures.receptive import NoReceptiveFieldError, Sight
from resattn.measures.roles import MASK, TRUNK, Roles
from resattn.networks.network import build
from resattn.networks.spec import NetworkSpec
from resattn.rules.rule import Rule, RuleError, Rules, find
from resattn.rules.table import RULES, constant_layers, layer_flags, unknown_ops

# A model is tried on inputs of up to so many times the size for one on which it runs as on larger ones.
MOST_TIMES = 64


class PartError(ValueError):
    """An unknown module path; the message gives the nearest paths of executed modules."""


@dataclass(frozen=True, eq=False)
class Captured:
    """A model and its captured graph. Values derived from the graph are computed on first use, once.

    `inputs`: the arguments of the forward. `rules`: the operator table of the capture. `why_values`: why it ran on
    values although "meta" was tried first; empty if it did not.
    """

    name: str
    model: nn.Module
    graph: Graph
    inputs: Inputs
    device: str = "meta"
    rules: Rules = field(default_factory=lambda: RULES)
    spec: NetworkSpec | None = None
    times: int = 1  # how many times larger the inputs are than those that were given
    why_values: str = ""
    index: Index | None = field(default=None, repr=False)
    log: Log = field(default_factory=list, repr=False)  # of what ran; see `instability`

    @classmethod
    def of(
        cls,
        model: nn.Module,
        *args: Any,
        name: str = "",
        device: str = "meta",
        rules: Rules = RULES,
        spec: NetworkSpec | None = None,
        why_values: str = "",
        **kwargs: Any,
    ) -> Captured:
        """The model captured on these arguments: see `capture`. Raises: CaptureError."""
        inputs = Inputs.of(args, kwargs)
        index = Index(model)
        log: Log = []
        graph = _captured(index, inputs, device, rules, log)
        return cls(name or type(model).__name__, model, graph, inputs, device, rules, spec, 1, why_values, index, log)

    def again(self, inputs: Inputs, device: str) -> Graph:
        """The same model captured on other inputs. Raises: CaptureError."""
        index = Index(self.model) if self.index is None else self.index.current
        return _captured(index, inputs, device, self.rules)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each input, with its batch."""
        return self.inputs.shapes

    # -- layers and roles

    @cached_property
    def is_layer(self) -> list[bool]:
        """For each operator whether it is a weighted layer."""
        return layer_flags(self.graph)

    @cached_property
    def convolutions(self) -> frozenset[int]:
        """The weighted layers that are convolutions. A convolution with a constant kernel (a blur) is not one."""
        return frozenset(op.index for op in self.graph.ops if op.kind == "convolution" and self.is_layer[op.index])

    @cached_property
    def constant_layers(self) -> list[Op]:
        """The weighted layers that depend on no input: they are on no path and count as trunk."""
        return constant_layers(self.graph)

    @cached_property
    def unknown(self) -> list[Op]:
        """The operators without a row in the operator table."""
        return unknown_ops(self.graph)

    @cached_property
    def roles(self) -> Roles:
        return roles.roles(self.graph, self.is_layer)

    def role_of(self, op: Op) -> str:
        """The role of an operator; one that depends on no input belongs to neither a mask nor a shortcut."""
        return TRUNK if op.index < 0 else self.roles.of[op.index]

    @cached_property
    def masks(self) -> list[int]:
        """The operators of the mask branches."""
        return self.roles.ops(MASK)

    @cached_property
    def trunk(self) -> Graph:
        """The graph without the masks."""
        return self.graph.without(self.masks)

    # -- parts

    @cached_property
    def attention_modules(self) -> tuple[str, ...]:
        """Paths of the modules that hold a mask: those with a child `mask` whose operators gate a trunk."""
        return tuple(dict.fromkeys(owner for i in self.masks if (owner := _owner(self.graph.ops[i].module))))

    def attention_module(self, path: str) -> str:
        """The path of the attention module that contains a module; empty if none does."""
        return next((owner for owner in _above(path) if owner in self._attends), "")

    @cached_property
    def _attends(self) -> frozenset[str]:
        return frozenset(self.attention_modules)

    @cached_property
    def units(self) -> tuple[str, ...]:
        """Paths of the executed residual units."""
        return tuple(m.path for m in self.graph.modules if m.kind.endswith("Unit") and m.is_executed)

    def inside(self, part: str, *of_roles: str) -> list[Op]:
        """The operators of a part of the network, in order; of all roles, or of these roles. Raises: PartError."""
        ops = self._inside.get(part, [])
        if not ops:
            known = [m.path for m in self.graph.modules if m.path and m.is_executed]
            near = get_close_matches(part, known, n=3) or known[:3]
            raise PartError(f"no module {part!r} was executed (nearest: {', '.join(near)})")
        return [op for op in ops if not of_roles or self.role_of(op) in of_roles]

    @cached_property
    def _inside(self) -> dict[str, list[Op]]:
        """By module the operators that ran in it or below it."""
        found: dict[str, list[Op]] = {}
        for op in self.graph.ops:
            if op.name != INPUT:
                for part in _above(op.module):
                    found.setdefault(part, []).append(op)
        return found

    # -- depth

    @cached_property
    def longest(self) -> Path | None:
        return depth.longest_path(self.graph, self.is_layer)

    @cached_property
    def shortest(self) -> Path | None:
        return depth.shortest_path(self.graph, self.is_layer)

    @cached_property
    def longest_in_trunk(self) -> Path | None:
        return depth.longest_path(self.trunk, self.is_layer)

    @cached_property
    def path_lengths(self) -> dict[int, int]:
        """The number of paths for each length in weighted layers."""
        return paths.path_lengths(self.graph, self.is_layer)

    # -- cost

    @cached_property
    def macs(self) -> list[int]:
        """Multiply-adds of each operator that depends on an input."""
        return cost.op_macs(self.graph)

    @cached_property
    def macs_constant(self) -> int:
        """Multiply-adds of the operators that depend on no input."""
        return cost.constant_macs(self.graph)

    def params(self, ops: Sequence[int] | None = None, *, constants: bool = False) -> int:
        """The number of parameters that some operators read, or all operators; a shared one counts once.

        `constants`: also those read by operators that depend on no input.
        """
        read = cost.read_params(self.graph, ops)
        if constants:
            read |= {name for op in self.graph.constants for name in op.params} | self.graph.returned
        return cost.n_params(self.graph, read)

    @cached_property
    def dead(self) -> tuple[str, ...]:
        """Paths of the weighted modules that were never executed and whose parameters no operator read."""
        read = cost.read_params(self.graph)
        return tuple(
            m.path
            for m in self.graph.modules
            if not m.is_executed and m.params and m.is_weighted and not read.intersection(m.params)
        )

    # -- receptive fields

    @cached_property
    def sight(self) -> Sight:
        return Sight(positionwise(self.graph))

    @property
    def is_image(self) -> bool:
        """Whether the first input has spatial axes: an image, a volume or a signal."""
        return bool(self.sight.dims)

    @cached_property
    def feature_map(self) -> int | None:
        """The last operator before global pooling; None if no operator keeps a map of positions.

        It is searched on an enlarged input, since on a small one the last maps may have a single position.
        """
        large, needed = self._roomy, self._needed
        common = {i for i in needed if i < large.n_alike}
        chosen = receptive.feature_map(large.sight, common, self.sight.graph, large.sight is not self.sight)
        if len(common) == len(needed) and chosen is not None:
            return chosen
        # Beyond where the model refuses a larger input, it is known on its own alone.
        here = self._own_map
        return here if here >= 0 and (chosen is None or here >= large.n_alike) else chosen

    @cached_property
    def fields(self) -> Fields:
        """The receptive fields of a unit of the last feature map.

        A model that runs other operators on a larger input (windows are shifted if more than one fits) is measured on
        the larger input, unless their number grows with the input, as in a loop over rows.
        """
        other = self._roomy.otherwise if self.is_image and self.times < MOST_TIMES else None
        if other and (self.times == 1 or 4 * len(other[0].ops) < 5 * len(self.graph.ops)):
            graph, inputs = other
            larger = replace(self, graph=graph, inputs=inputs, times=self.times * next(iter(self._larger)))
            return reported_for(larger.fields, larger.sight.sizes, self.sight.sizes)
        return self.fields_at(None)

    def fields_at(self, op: int | None) -> Fields:
        """The receptive fields of a unit of an operator's result, on an input so large that no border clips them."""
        if not self.is_image:
            return Fields(notes=("the input is no image",))
        try:
            op = self.feature_map if op is None else op
            if op is None:
                return Fields(notes=("no operator keeps a map of positions",))
            return fields_at(self.sight, op, frozenset(self.masks), self._enlarged)
        except RuleError as error:
            if self.rules is not RULES:
                raise
            return Fields(notes=(str(error),))
        except Exception as error:  # nothing that is known besides may be lost
            return Fields(notes=(f"{type(error).__name__}: {error}".rstrip(": "),))

    @property
    def large(self) -> Graph:
        """The model on an input so large that no unit in the middle of the last feature map sees a border."""
        return self._roomy.sight.graph

    @cached_property
    def _roomy(self) -> Enlarged:
        return self._by(times_for(self.sight, self.graph.outputs, ROOM))

    @cached_property
    def _own_map(self) -> int:
        """The last map on the input as it was given; -1 where there is none."""
        found = receptive.feature_map(self.sight, self._needed, self.sight.graph, False)
        return -1 if found is None else found

    @cached_property
    def _needed(self) -> set[int]:
        return {i for output in self.graph.outputs for i in self.graph.ancestors(output)}

    @cached_property
    def _larger(self) -> dict[int, Enlarged]:
        return {}

    def _enlarged(self, op: int, room: int) -> Enlarged:
        # Most often one enlarged input has room for all.
        times = max(times_for(self.sight, [op], ROOM), next(iter(self._larger), 1))
        return self._by(times * (room // ROOM), op)

    def _by(self, times: int, op: int | None = None) -> Enlarged:
        """On "meta" a large input costs nothing: values are computed only if an operator needs them (None: the last map
        on the model's own input)."""
        if times not in self._larger:
            self._larger[times] = self._larger_on("meta", times)
        known = self._larger[times]
        if known.is_cut and self.device != "meta":
            op = self._own_map if op is None else op
            if op >= known.n_alike:
                further = self._further(times, op)
                self._larger[times] = known = replace(known, is_cut=False) if further is None else further
        return known

    def _further(self, times: int, op: int) -> Enlarged | None:
        """On values; None where this gives nothing of the operator, which a small input shows at little cost."""
        try:
            for axis in self.sight.axes_to(op):
                self.sight.extent(axis, op)
        except NoReceptiveFieldError:
            return None
        small = self._larger_on(self.device, 2) if times > 4 else None
        if small is not None and op >= small.n_alike and small.otherwise is None:
            return None
        return self._larger_on(self.device, times)

    def _larger_on(self, device: str, times: int) -> Enlarged:
        return enlarged_by(times, self.sight, self.inputs, (device, self.device), self.again)

    # -- is it one network?

    @cached_property
    def instability(self) -> str:
        """The module at which a second pass differs from the first; empty if both are equal."""
        second: Log = []
        if self.device == "meta" and self.index is not None and self.log:
            try:
                second = recording.replay(self.index.current, self.inputs, functools.partial(find, self.rules))
            except Exception:  # a capture says why
                second = []
            if second == self.log:
                return ""
        # What ran differs, be it constants that are kept since the first pass: graphs decide, of the same pass.
        for _ in range(2):
            log: Log = []
            graph = _captured(Index(self.model), self.inputs, self.device, self.rules, log)
            if not second or log == second:
                break
        for a, b in zip_longest(self.graph.ops, graph.ops):
            if a is None or b is None or (a.name, a.module, a.shapes) != (b.name, b.module, b.shapes):
                return (a or b).module or "the model"
        return ""


def is_in(module: str, part: str) -> bool:
    """Whether a module is `part` or lies in it."""
    return module == part or module.startswith(part + ".")


def _above(path: str) -> list[str]:
    """The path of a module, and of those above it, from the outermost on."""
    parts = path.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts) + 1)]


def _owner(path: str) -> str:
    parts = path.split(".")
    return ".".join(parts[: parts.index("mask")]) if "mask" in parts else ""


def _captured(index: Index, inputs: Inputs, device: str, rules: Rules, log: Log | None = None) -> Graph:
    rule_of = functools.partial(find, rules)
    return recording.capture(index.model, inputs, rule_of=rule_of, device=device, index=index, log=log)


def capture(model: nn.Module, *args: Any, device: str = "meta", rules: Rules = RULES, **kwargs: Any) -> Graph:
    """The graph of one forward pass in evaluation mode, each operator with its row of the operator table.

    `args`, `kwargs`: example tensors as the forward takes them, or shapes with their batch dimension. `device`: "meta"
    computes nothing; on "cpu" the pass is real. See `resattn.graph.capture`.
    Raises: CaptureError, NeedsValuesError.
    """
    return recording.capture(model, *args, rule_of=functools.partial(find, rules), device=device, **kwargs)


# Most studies use some tens of networks, each in many places.
MOST_KEPT = 128


@functools.lru_cache(maxsize=MOST_KEPT)
def captured(spec: NetworkSpec) -> Captured:
    """The network of a spec, captured on its own input on the meta device; the result is cached."""
    with without_collection():
        model = build(spec, device="meta")
        found = Captured.of(model, (1, *spec.input_shape), name=spec.name, spec=spec)
        vars(found)["instability"] = ""  # nothing that `build` makes changes between calls: a test captures twice
        return found


def extended(rows: Mapping[str, Rule]) -> Rules:
    """The operator table with a user's rows, by names such as `mylib::scan`; they replace rows of the same name.

    Raises: RuleError for an unknown operator, or a value that is not a `Rule`.
    """
    from torch._C import _dispatch_get_all_op_names

    known = {name.partition(".")[0] for name in _dispatch_get_all_op_names()}
    added = {}
    for name, rule in rows.items():
        full = name if "::" in name else name.replace(".", "::", 1)
        if full not in known:
            near = get_close_matches(full, known, n=3)
            raise RuleError(f"no operator {name!r}" + (f" (nearest: {', '.join(near)})" if near else ""))
        if not isinstance(rule, Rule):
            raise RuleError(f"the rule for {name} is a {type(rule).__name__}, not a resattn.Rule")
        added[full.replace("::", ".")] = rule
    return {**RULES, **added}
