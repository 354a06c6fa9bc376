"""A recorded forward pass with its autograd graph, and gradients multiplied by a complex factor at chosen operators.

Autograd numbers its nodes in the order in which it makes them, so that each recorded operator is matched with the node
that carries its gradient, including functional calls, shared modules and writes in place.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._C._autograd import _get_sequence_nr
from torch.autograd.function import BackwardCFunction

from resattn.graph.capture import without_fast_path
from resattn.graph.graph import Graph, Op
from resattn.graph.inputs import Blank, Inputs
from resattn.graph.recorder import Recorder
from resattn.graph.walk import leaves_of, modules_of, parameters_of, tensors_in

if TYPE_CHECKING:
    from resattn.rules.rule import Rule

DTYPE = torch.float64
Pair = tuple[Tensor | None, Tensor | None]  # real and imaginary part; None is zero


class TapeError(ValueError):
    """A model's gradient cannot be followed operator by operator; the message names the operator and the module."""


class _Taping(Recorder):
    """Records with gradients on, and which autograd node belongs to which operator."""

    def __init__(self, model: nn.Module, rule_of: Callable[[str], Rule | None]) -> None:
        super().__init__(model, rule_of, "cpu")
        self.op_of: dict[int, int] = {}  # sequence number of a node -> index of the operator
        self.hidden: dict[int, list[int]] = {}  # last node -> operators that ran with gradients off
        self.leaves: list[Tensor] = []

    def _record(
        self, signature: Any, rule: Any, operands: Any, arguments: Any, outputs: list[Tensor], *more: Any
    ) -> None:
        super()._record(signature, rule, operands, arguments, outputs, *more)
        index, number = len(self.ops) - 1, _get_sequence_nr() - 1
        given = tensors_in(arguments)
        if not torch.is_grad_enabled():
            self.hidden.setdefault(number, []).append(index)
        elif any(t.requires_grad for t in given):
            self.op_of.setdefault(number, index)  # an operator without a gradient (argmax) makes no node
        else:
            self._start_at(given, outputs)

    def _start_at(self, given: list[Tensor], outputs: list[Tensor]) -> None:
        """Integers have no gradient: it is taken for the first real numbers that are made of them (an embedding)."""
        data = [t for t in given if (origin := self._origin(t)) is not None and origin.producer is not None]
        if any(t.is_floating_point() or t.is_complex() for t in data):
            return
        for tensor in (t for t in outputs if t.is_floating_point()):
            tensor.requires_grad_()
            self.leaves.append(tensor)


@dataclass(frozen=True)
class _Node:
    """An autograd node. `edges`: for each gradient that it gives, the node or leaf that takes it (None: nobody)."""

    call: Callable[..., Any]
    name: str
    op: int | None
    n_outputs: int
    edges: tuple[tuple[int, int] | None, ...]
    number: int
    is_own: bool  # an autograd function that is written in Python


@dataclass(frozen=True)
class Tape:
    """A recorded forward pass with its autograd graph.

    `leaves`: the tensors whose gradient is computed: real inputs, and the first real tensors made from integer inputs.
    `nodes`: in the order of the backward pass; an edge below 0 leads to leaf -1 - index. `n_bytes`: kept by autograd.
    """

    graph: Graph
    leaves: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    roots: tuple[tuple[int, int] | None, ...]
    nodes: tuple[_Node, ...]
    n_bytes: int

    @property
    def ops(self) -> frozenset[int]:
        """The operators that a gradient passes."""
        return frozenset(node.op for node in self.nodes if node.op is not None)

    def gradient(self, cotangents: Sequence[Tensor]) -> list[Tensor]:
        """Autograd's own gradient of the leaves."""
        kept = [k for k, root in enumerate(self.roots) if root is not None]
        try:
            found = torch.autograd.grad(
                [self.outputs[k] for k in kept], self.leaves, [cotangents[k] for k in kept], retain_graph=True,
                allow_unused=True,
            )  # fmt: skip
        except RuntimeError as error:
            raise TapeError(f"the backward pass fails: {_first_line(error)}") from error
        return [torch.zeros_like(x) if g is None else g for x, g in zip(self.leaves, found, strict=True)]

    def longest(self, turned: Collection[int]) -> int:
        """The largest number of turned operators on any way back from an output to a leaf."""
        most = [0] * len(self.nodes)
        for k in range(len(self.nodes) - 1, -1, -1):
            after = [most[e[0]] for e in self.nodes[k].edges if e is not None and e[0] >= 0]
            most[k] = max(after, default=0) + (self.nodes[k].op in turned)
        return max((most[r[0]] for r in self.roots if r is not None), default=0)

    @torch.no_grad()
    def turned(
        self, cotangents: Sequence[Tensor], turn: complex, at: Collection[int], closed: Collection[int] = ()
    ) -> list[Tensor]:
        """The complex gradient of each leaf, with every gradient multiplied by `turn` as it passes one of `at`.

        No gradient passes the operators in `closed`.
        """
        waiting: dict[int, list[Pair]] = {}
        for root, cotangent in zip(self.roots, cotangents, strict=True):
            if root is not None:
                self._add(waiting, root, (cotangent, None))
        for k, node in enumerate(self.nodes):
            pairs = waiting.pop(k, None)
            if pairs is None or node.op in closed:
                continue
            if node.op in at:
                pairs = [_times(pair, turn) for pair in pairs]
            real, imaginary = (self._through(node, [pair[i] for pair in pairs]) for i in (0, 1))
            for edge, re, im in zip(node.edges, real, imaginary, strict=True):
                if edge is not None and (re is not None or im is not None):
                    self._add(waiting, edge, (re, im))
        return [_complex(waiting.get(-1 - i, [(None, None)])[0], leaf) for i, leaf in enumerate(self.leaves)]

    def _add(self, waiting: dict[int, list[Pair]], edge: tuple[int, int], pair: Pair) -> None:
        at, slot = edge
        slots = waiting.setdefault(at, [(None, None)] * (self.nodes[at].n_outputs if at >= 0 else 1))
        slots[slot] = (_sum(slots[slot][0], pair[0]), _sum(slots[slot][1], pair[1]))

    def _through(self, node: _Node, gradients: list[Tensor | None]) -> Sequence[Tensor | None]:
        if all(g is None for g in gradients):
            return [None] * len(node.edges)
        try:
            found = node.call(*gradients)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0].partition(" Hint:")[0]
            raise TapeError(f"no gradient through {node.name} in {_place(self.graph, node.op)}: {reason}") from error
        return found if isinstance(found, tuple) else (found,)


def record(
    model: nn.Module, inputs: Inputs, *, rule_of: Callable[[str], Rule | None], is_layer: Callable[[Op], bool],
    seed: int = 0,
) -> Tape:  # fmt: skip
    """The tape of one forward pass in evaluation mode, in float64, on a copy of the model.

    Real inputs given as shapes are drawn from N(0, 1), integer inputs are zero; every draw uses `seed`. `is_layer`:
    selects the operators that must have an autograd node.
    Raises: TapeError for a model that does not run in this way, or with a layer that has no node of its own.
    """
    model = _in_float64(model)
    recorder = _Taping(model, rule_of)
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), _float64_by_default():
        torch.manual_seed(seed)
        own = {id(leaf): _value(leaf) for leaf in inputs.leaves}
        # A model may write into its input, which a tensor that collects a gradient does not allow.
        made = {key: t.clone() if t.requires_grad else t for key, t in own.items()}
        call = inputs._replaced(made)
        for tensor in made.values():
            recorder.start(tensor)
        try:
            with recorder.restoring(), without_fast_path(), recorder.watching_calls(), recorder:
                outputs = leaves_of(model(*call.args, **call.kwargs))
                producers = dict.fromkeys(recorder.operand(t).producer for t in outputs)
        except Exception as error:
            where = recorder.failed_at or type(model).__name__
            raise TapeError(
                f"the forward fails in float64 with gradients: {_first_line(error)} (in {where})"
            ) from error
    graph = recorder.graph([p for p in producers if p is not None], tuple(tuple(t.shape) for t in made.values()))
    leaves = [*(t for t in own.values() if t.requires_grad), *recorder.leaves]
    tape = _taped(recorder, graph, leaves, [t for t in outputs if t.is_floating_point() or t.is_complex()])
    _check(tape, recorder, is_layer)
    return tape


def _in_float64(model: nn.Module) -> nn.Module:
    held = [t for _, m in modules_of(model) for t in (*m._parameters.values(), *m._buffers.values()) if t is not None]
    if any(t.is_meta for t in held):
        raise TapeError(f"{type(model).__name__} is on the meta device, where weights have no values")
    try:
        model = copy.deepcopy(model)
        for _, module in modules_of(model):
            module.to("cpu", DTYPE)
    except Exception as error:
        raise TapeError(f"{type(model).__name__} cannot be copied to float64: {_first_line(error)}") from error
    for _, param in parameters_of(list(modules_of(model))):
        param.requires_grad_(False)  # their gradient is not wanted, and would cost as much again
    return model


@contextmanager
def _float64_by_default() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(DTYPE)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _value(leaf: Tensor | Blank) -> Tensor:
    if isinstance(leaf, Tensor):
        value = leaf.detach().to("cpu", copy=True)
    elif leaf.dtype is None or leaf.dtype.is_floating_point:
        value = torch.randn(leaf.shape, dtype=DTYPE)
    else:
        value = torch.zeros(leaf.shape, dtype=leaf.dtype)
    if value.is_floating_point():
        value = value.to(DTYPE)
    if value.is_complex():
        raise TapeError("an input of complex numbers: its gradient is not followed")
    return value.requires_grad_(value.is_floating_point())


# -- the autograd graph


def _taped(recorder: _Taping, graph: Graph, leaves: Sequence[Tensor], outputs: Sequence[Tensor]) -> Tape:
    order = _in_order([t.grad_fn for t in outputs])
    place = {id(leaf): -1 - i for i, leaf in enumerate(leaves)}
    at: dict[Any, int] = {}  # nodes and gatherers of leaves that lead to a leaf
    for node in order:  # consumers last
        if hasattr(node, "variable"):
            if id(node.variable) in place:
                at[node] = place[id(node.variable)]
        elif any(after in at for after, _ in node.next_functions):
            at[node] = len(order)  # its number is given below
    kept = [node for node in reversed(order) if at.get(node, -1) >= 0]
    at |= {node: k for k, node in enumerate(kept)}

    def edge(node: Any, slot: int) -> tuple[int, int] | None:
        return (at[node], slot) if node in at else None

    nodes = []
    for node in kept:
        is_own = isinstance(node, BackwardCFunction)
        number = node._sequence_nr()
        op = recorder.op_of.get(number)
        if op is None and is_own and len(recorder.hidden.get(number, ())) == 1:
            op = recorder.hidden[number][0]  # an operator of a library of the user's, in its own function
        edges = tuple(edge(after, slot) for after, slot in node.next_functions)
        call = _of_python(node) if is_own else node
        nodes.append(_Node(call, node.name(), op, len(node._input_metadata), edges, number, is_own))
    roots = tuple(edge(t.grad_fn, t.output_nr) if t.grad_fn is not None else None for t in outputs)
    return Tape(graph, tuple(leaves), tuple(outputs), roots, tuple(nodes), _saved_bytes(kept))


def _of_python(node: Any) -> Callable[..., tuple[Tensor | None, ...]]:
    """The backward pass of a function that is written in Python, as autograd's engine calls it."""

    def call(*gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        about = zip(gradients, node._input_metadata, strict=True)
        whole = [torch.zeros(m.shape, dtype=m.dtype) if g is None else g for g, m in about]
        found = node.apply(*whole)
        found = found if isinstance(found, tuple) else (found,)
        # One for each argument, but only tensors have edges.
        needed = iter([g for g, is_needed in zip(found, node.needs_input_grad, strict=False) if is_needed])
        return tuple(None if after is None else next(needed) for after, _ in node.next_functions)

    return call


def _in_order(roots: Sequence[Any]) -> list[Any]:
    """Every autograd node below the roots, each behind those that its gradient goes to."""
    done: dict[Any, None] = {}
    for root in roots:
        stack: list[tuple[Any, bool]] = [(root, False)]
        while stack:
            node, is_open = stack.pop()
            if node is None or node in done:
                continue
            if is_open or hasattr(node, "variable"):
                done[node] = None
            else:
                stack.append((node, True))
                stack += [(after, False) for after, _ in node.next_functions]
    return list(done)


def _saved_bytes(nodes: Sequence[Any]) -> int:
    """Of the tensors that autograd keeps for the backward pass, each storage once; parameters are among them."""
    sizes: dict[int, int] = {}
    for node in nodes:
        for name in dir(node):
            if name.startswith("_saved_"):
                try:
                    saved = getattr(node, name)
                except RuntimeError:  # written over since: the backward pass says so
                    continue
                for tensor in tensors_in(saved):
                    storage = tensor.untyped_storage()
                    sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def _check(tape: Tape, recorder: _Taping, is_layer: Callable[[Op], bool]) -> None:
    """Raises: TapeError for a weighted layer that a gradient passes and that has no node of its own."""
    wanted = {i for output in tape.graph.outputs for i in tape.graph.ancestors(output)}
    missing = [op for op in tape.graph.ops if op.index in wanted - tape.ops and is_layer(op)]
    for op in missing:
        inside = [n.name for n in tape.nodes if n.is_own and op.index in recorder.hidden.get(n.number, ())]
        if inside:
            raise TapeError(
                f"{op.place} runs inside an autograd function of its own ({inside[0]}): its layers cannot be separated"
            )
        if op.index in recorder.op_of.values() and any(node.name.endswith("CopySlices") for node in tape.nodes):
            raise TapeError(f"{op.place} writes in place into a part of a tensor: autograd gives it no node of its own")


def _place(graph: Graph, op: int | None) -> str:
    return "the model" if op is None else graph.ops[op].module or "the model"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


# -- pairs of a real and an imaginary part


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def _scaled(a: Tensor | None, factor: float) -> Tensor | None:
    return None if a is None or factor == 0 else a if factor == 1 else a * factor


def _complex(pair: Pair, like: Tensor) -> Tensor:
    real, imaginary = (torch.zeros_like(like) if part is None else part for part in pair)
    return torch.complex(real, imaginary)


def _times(pair: Pair, turn: complex) -> Pair:
    (re, im), c, s = pair, turn.real, turn.imag
    return _sum(_scaled(re, c), _scaled(im, -s)), _sum(_scaled(re, s), _scaled(im, c))
