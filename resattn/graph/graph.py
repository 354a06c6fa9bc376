"""The graph of one forward pass: operators in order of execution, and the data between them. Standard library only."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resattn.rules.rule import Rule

Shape = tuple[int, ...]


class Indices(tuple[int, ...]):
    """The shape of an input of integers, such as token ids."""

    __slots__ = ()


INPUT = "input"  # an input of the model
OVERWRITE = "overwrite"  # a tensor after a write in place to one that shares its memory


# These are not frozen, which would take several times as long to make: there are thousands. Nothing changes one.
@dataclass(slots=True, unsafe_hash=True)
class Operand:
    """A tensor argument: the operator that produced it (None: no input reaches it), and the parameters it was made
    from.

    A tensor made from both has its parameters at the operators on the way, not here. Element-wise work and views keep
    the parameters of their argument; the result of a product is an activation and has none.
    `slot`: which result of the operator it is. `values`: the content of a constant index. `constant`: the index of the
    recorded operator that made it of parameters, by products; 0 where none did.
    """

    shape: Shape
    producer: int | None = None
    slot: int = 0
    params: tuple[str, ...] = ()
    values: tuple[int, ...] | None = None
    constant: int = 0


@dataclass(slots=True)
class Op:
    """One executed operator.

    `module`: path of the innermost module in whose forward it ran. `rule`: its row in the operator table of the
    capture; None if it has none. `operands`: the tensor arguments in order, including those in lists. `call`: the same
    object for calls that differ in their operands only; None if that is not known.
    """

    index: int
    name: str
    module: str
    arguments: Mapping[str, Any]
    shapes: tuple[Shape, ...]
    rule: Rule | None = field(default=None, repr=False, compare=False)
    call: Any = field(default=None, repr=False, compare=False)
    operands: tuple[Operand, ...] = field(default=(), repr=False, compare=False)
    inputs: tuple[int, ...] = field(init=False)
    params: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        if not self.operands:
            found: list[Operand] = []
            for value in self.arguments.values():
                if type(value) is Operand:
                    found.append(value)
                elif type(value) is tuple:
                    found += [v for v in value if type(v) is Operand]
            self.operands = tuple(found)
        # A producer is listed once for each read: x * x has two paths.
        self.inputs = tuple([o.producer for o in self.operands if o.producer is not None])
        self.params = tuple([name for o in self.operands for name in o.params])

    @property
    def shape(self) -> Shape:
        return self.shapes[0] if self.shapes else ()

    @property
    def kind(self) -> str:
        """The kind of its rule; empty if it has no rule."""
        return self.rule.kind if self.rule is not None else ""

    @property
    def place(self) -> str:
        """Its name and its module, for messages."""
        return f"{self.name} in {self.module or 'the model'}"

    def alike(self, read: Operand) -> Any:
        """A key, equal for operators with equal rule, shapes and arguments that read `read` at the same place."""
        if self.call is not None:
            operands = tuple([(o is read, bool(o.params), o.values) for o in self.operands])
            return self.call, id(self.rule), operands
        arguments = tuple([(name, _described(value, read)) for name, value in self.arguments.items()])
        return self.name, id(self.rule), self.shapes, arguments

    def alike_all(self, reads: Sequence[tuple[Operand, int]]) -> Any:
        """A key, equal for operators with equal rule, shapes and arguments whose operands have equal numbers; None if
        that is not certain. `reads`: some of the operands, each with a number.
        """
        if self.call is None:
            return None
        numbers = {id(operand): number for operand, number in reads}
        operands = tuple([(numbers.get(id(o)), not o.params, o.values) for o in self.operands])
        return self.call, id(self.rule), operands


def _described(value: Any, read: Operand) -> Any:
    if isinstance(value, Operand):
        return value.shape, value is read, bool(value.params), value.values
    return tuple([_described(v, read) for v in value]) if isinstance(value, tuple) else repr(value)


@dataclass(slots=True)
class Module:
    """A module as the model defines it: its own parameters, whether its forward ran, and whether it holds a weight.

    A weight multiplies data: a matrix or a kernel, not the scale of a norm. `n_runs`: how often its forward ran.
    `result`: the first tensor that the last run returned.
    """

    path: str
    kind: str
    params: tuple[str, ...]
    is_executed: bool
    is_weighted: bool
    n_runs: int = 0
    result: Operand | None = None


@dataclass(frozen=True)
class Graph:
    """Operators in order of execution (which is topological), from the inputs to the outputs.

    `params`: number of elements of every parameter, read or not; a shared one is listed once. `constants`: products
    that depend on no input, and the operators that read their results; every call executes them, with the same result
    (position tables, learned queries, a zero state). They are on no path; their `index` is negative. `unread`:
    constants whose result nothing reads. `returned`: parameters that an output is, or is made from without a product
    and without data.
    """

    ops: tuple[Op, ...]
    outputs: tuple[int, ...]
    params: Mapping[str, int]
    modules: tuple[Module, ...]
    input_shapes: tuple[Shape, ...]
    constants: tuple[Op, ...] = ()
    unread: frozenset[int] = frozenset()
    returned: frozenset[str] = frozenset()

    def ancestors(self, index: int) -> list[int]:
        """The indices of the operators that this one depends on, itself included, in order of execution."""
        wanted = {index}
        for op in reversed(self.ops[: index + 1]):
            if op.index in wanted:
                wanted.update(op.inputs)
        return sorted(wanted)

    def without(self, removed: Collection[int]) -> Graph:
        """The graph without some operators and without the edges from them. Indices do not change."""
        gone = set(removed)
        ops = tuple(_cut(op, gone) if gone.intersection(op.inputs) else op for op in self.ops)
        return replace(self, ops=ops, outputs=tuple(o for o in self.outputs if o not in gone))


def _cut(op: Op, gone: set[int]) -> Op:
    arguments = {name: _without(value, gone) for name, value in op.arguments.items()}
    return Op(op.index, op.name, op.module, arguments, op.shapes, op.rule, op.call)


def _without(value: Any, gone: set[int]) -> Any:
    if isinstance(value, Operand) and value.producer in gone:
        return Operand(value.shape)
    return tuple([_without(v, gone) for v in value]) if isinstance(value, tuple) else value
