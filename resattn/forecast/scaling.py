"""Cost as a formula: multiply-adds and activations as exact expressions in the sizes of the input."""

from __future__ import annotations

import builtins
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from resattn.forecast.copies import copied
from resattn.graph.capture import without_fast_path
from resattn.graph.errors import is_foreign, line_of
from resattn.graph.graph import INPUT
from resattn.graph.inputs import Inputs
from resattn.graph.recorder import Recorder
from resattn.measures.captured import Captured
from resattn.rules.rule import find, macs_of
from resattn.views.table import Table

QUANTITIES = ("macs", "activations")
# The axes of an input by its number of dimensions, without the channels: their names and letters.
AXES: Mapping[int, tuple[tuple[int, str], ...]] = {
    1: ((0, "B"),),
    2: ((0, "B"),),
    3: ((0, "B"), (2, "L")),
    4: ((0, "B"), (2, "H"), (3, "W")),
    5: ((0, "B"), (2, "D"), (3, "H"), (4, "W")),
}
TOKENS = ((0, "B"), (1, "L"))  # of an input of integers
LETTERS = {"B": "batch", "H": "height", "W": "width", "L": "length", "D": "depth or frames"}
PRODUCTS = ("convolution", "matmul", "attention")
LEAST = 2  # a size of 1 is broadcast: the formula says so itself where it holds there too


class ScalingError(ValueError):
    """There is no formula, or it does not hold for a size; the message names the condition and its line of code."""


@dataclass(frozen=True)
class Condition:
    """A condition on the sizes under which the formula holds, and the line of code that requires it."""

    text: str
    where: str
    code: Any = field(repr=False, compare=False)


@dataclass(frozen=True)
class Term:
    """`times` multiplied by the factors; each factor is an expression in the sizes of the input."""

    times: int
    factors: tuple[str, ...]
    code: Any = field(repr=False, compare=False)

    def __str__(self) -> str:
        return " * ".join((f"{self.times:,}", *self.factors))


@dataclass(frozen=True)
class Formula:
    """A quantity as a sum of products."""

    terms: tuple[Term, ...]

    def at(self, sizes: Mapping[str, int]) -> int:
        return sum(term.times * int(_value(term.code, sizes)) for term in self.terms)

    def __str__(self) -> str:
        return "\n  + ".join(map(str, self.terms)) or "0"


@dataclass(frozen=True)
class Scaling:
    """Multiply-adds and activations of one forward, as formulas in the sizes of the input.

    `sizes`: letter to value in the audit, for each size that may change. `fixed`: sizes for which the forward accepts
    one value only, and the line that decides it. `conditions`: what the sizes must fulfil; other sizes are refused.
    `activations`: number of elements in the results of convolutions, matrix products and attention.
    """

    target: str
    macs: Formula
    activations: Formula
    sizes: Mapping[str, int]
    fixed: Mapping[str, str]
    conditions: tuple[Condition, ...]
    unknown_ops: tuple[str, ...] = ()
    network: Captured | None = field(default=None, repr=False, compare=False)
    length_dim: int = 2
    single: dict[int, Scaling] = field(default_factory=dict, repr=False, compare=False)

    def at(self, **sizes: int) -> dict[str, int]:
        """Both quantities at these sizes, given by letter; a size that is not given has its value in the audit.

        Raises: ScalingError for a size outside the formula's conditions.
        """
        if wrong := set(sizes) - set(self.sizes):
            raise ScalingError(f"no size {', '.join(sorted(wrong))} (one of: {', '.join(self.sizes)})")
        full = {**self.sizes, **sizes}
        for letter, n in full.items():
            if isinstance(n, bool) or not isinstance(n, int) or n < 1:
                raise ScalingError(f"{letter} takes a number of at least 1, found {n!r}")
        if full.get("B") == 1:
            return self._of_one().at(**{k: n for k, n in full.items() if k != "B"})
        self._check(full)
        return {"macs": self.macs.at(full), "activations": self.activations.at(full)}

    def _check(self, sizes: Mapping[str, int]) -> None:
        for letter, n in sizes.items():
            if n < LEAST and n != self.sizes[letter]:
                raise ScalingError(f"{letter} = {n}: the formula holds from {LEAST} on")
        for condition in self.conditions:
            if not _value(condition.code, sizes):
                at = ", ".join(f"{k} = {n}" for k, n in sizes.items())
                raise ScalingError(
                    f"{self.target}: the formula does not reach {at}: it needs {condition.text} ({condition.where})"
                )

    def _of_one(self) -> Scaling:
        """The formula for a batch of 1, which torch treats on its own: it is derived again, on first use."""
        if 1 not in self.single:
            assert self.network is not None
            self.single[1] = _traced(self.network, 1, self.length_dim)
        return self.single[1]

    def table(self) -> Table:
        """One row for each term."""
        rows = [(q, t.times, " * ".join(t.factors)) for q in QUANTITIES for t in getattr(self, q).terms]
        return Table.of(("quantity", "times", "factors"), rows)

    def to_json(self) -> dict[str, Any]:
        def terms(formula: Formula) -> list[dict[str, Any]]:
            return [{"times": t.times, "factors": list(t.factors)} for t in formula.terms]

        return {
            "target": self.target, "sizes": dict(self.sizes), "fixed": dict(self.fixed),
            "macs": terms(self.macs), "activations": terms(self.activations),
            "conditions": [{"condition": c.text, "where": c.where} for c in self.conditions],
            "unknown_ops": list(self.unknown_ops),
        }  # fmt: skip

    def __str__(self) -> str:
        shown = ", ".join(f"{letter} {LETTERS[letter[0]]} ({n})" for letter, n in self.sizes.items())
        lines = [f"{self.target}: sizes {shown}", f"macs =\n    {self.macs}", f"activations =\n    {self.activations}"]
        lines += [f"fixed: {letter} = {self.sizes[letter]} only, {where}" for letter, where in self.fixed.items()]
        strong = [c for c in self.conditions if "!=" not in c.text and c.text.count("==") == 1 and "max(" not in c.text]
        lines += [f"only where {c.text} ({c.where})" for c in strong if not any(c.where in w for w in
                  self.fixed.values())]  # fmt: skip
        if rest := len(self.conditions) - len(strong):
            lines.append(f"and under {rest} conditions that maps are large enough; a size that breaks one is refused")
        lines += [f"no rule for {op}: macs is a lower bound" for op in self.unknown_ops]
        return "\n".join(lines)


def scaling(network: Captured) -> Scaling:
    """The formulas of a captured network, from one pass on symbolic sizes.

    Source: torch's ShapeEnv, which derives the size of every result, including sizes computed in Python, and records
    each decision about a size; these decisions are the conditions.
    Raises: ScalingError if the forward does not run on symbolic sizes, or the formula does not give the audit's number.
    """
    found = _fitting(network, 2)
    if "L" in found.fixed and any(len(shape) == 3 for shape in network.shapes):
        found = _fitting(network, 1)  # the length stands before the channels
    own = {"macs": sum(network.macs) + network.macs_constant, "activations": _activations(network)}
    for name in QUANTITIES:
        if (here := getattr(found, name).at(found.sizes)) != own[name]:
            raise ScalingError(
                f"{network.name}: with symbolic sizes other operators run: {here:,} {name}, not {own[name]:,}"
            )
    return found


def _fitting(network: Captured, length_dim: int) -> Scaling:
    """The formulas; for a batch of 1 only where the forward accepts no other, or makes it a number of Python."""
    is_one = network.shapes[0][:1] == (1,)
    found = None
    try:
        found = _traced(network, None, length_dim)
    except ScalingError:
        if not is_one:
            raise
    if found is not None and not (is_one and "B" in found.fixed):
        return found
    one = _traced(network, 1, length_dim)
    where = "the forward accepts only this batch" if found is None else found.fixed["B"]
    batch = Condition("B == 1", where, compile("B == 1", "<size>", "eval"))
    sizes, fixed = {"B": 1, **one.sizes}, {"B": where, **one.fixed}
    return replace(one, sizes=sizes, fixed=fixed, conditions=(batch, *one.conditions), single={1: one})


def _activations(network: Captured) -> int:
    graph = network.graph
    return sum(math.prod(op.shape) for op in (*graph.ops, *graph.constants) if op.kind in PRODUCTS)


def axes_of(inputs: Inputs, length_dim: int = 2) -> list[tuple[tuple[int, str], ...]]:
    """For each input the axes that may change, by letter; a number follows the letter if equal axes differ in size."""
    known: dict[str, int] = {}
    found = []
    for leaf in inputs.leaves:
        is_tokens = leaf.dtype is not None and not leaf.dtype.is_floating_point
        is_sequence = is_tokens or (len(leaf.shape) == 3 and length_dim == 1)
        axes = TOKENS[: len(leaf.shape)] if is_sequence else AXES.get(len(leaf.shape), ((0, "B"),))
        named = []
        for dim, letter in axes[: len(leaf.shape)]:
            n, name = 1, letter
            while known.setdefault(name, leaf.shape[dim]) != leaf.shape[dim]:
                n += 1
                name = f"{letter}{n}"
            named.append((dim, name))
        found.append(tuple(named))
    return found


def _traced(network: Captured, batch: int | None = None, length_dim: int = 2) -> Scaling:
    """The formulas with every size symbolic; or, for a `batch`, with that one."""
    from torch._dispatch.python import enable_python_dispatcher
    from torch._subclasses.fake_tensor import FakeTensorMode

    trace = _Trace()
    try:
        model = copied(network.model, "meta")
    except Exception as error:
        raise ScalingError(f"{network.name}: the model cannot be copied: {error}") from error
    inputs = network.inputs
    axes = axes_of(inputs, length_dim)
    sizes = {name: leaf.shape[dim] for leaf, named in zip(inputs.leaves, axes, strict=True) for dim, name in named}
    symbols = {
        name: 1 if name == "B" and batch == 1 else trace.symbol(name, max(n, LEAST) if name == "B" else n)
        for name, n in sizes.items()
    }
    recorder = Recorder(model, lambda name: find(network.rules, name), "cpu")
    trace.at = recorder
    # Cost does not depend on which tensors share elements, and symbolic sizes cannot be compared for it.
    recorder._written = recorder._mark  # type: ignore[method-assign, assignment]
    recorder._save = lambda *_: None  # type: ignore[method-assign]
    mode = FakeTensorMode(shape_env=trace.env, allow_non_fake_inputs=True)
    try:
        with mode:
            tensors = [
                _symbolic(leaf, [(dim, symbols[name]) for dim, name in named], recorder.dtype)
                for leaf, named in zip(inputs.leaves, axes, strict=True)
            ]
            args, kwargs = inputs.filled(tensors)
        for tensor in tensors:
            recorder.start(tensor)
        with (
            recorder.restoring(), torch.no_grad(), without_fast_path(), recorder.watching_calls(),
            mock.patch.object(builtins, "len", _length), enable_python_dispatcher(), mode, recorder,
        ):  # fmt: skip
            model(*args, **kwargs)
        ops = [op for op in (*recorder.ops, *recorder.constants) if op.name != INPUT]
        with trace.quiet():
            macs = trace.formula([macs_of(op) for op in ops])
            activations = trace.formula([math.prod(op.shape) for op in ops if op.kind in PRODUCTS])
    except Exception as error:
        text = next((line for line in str(error).splitlines() if line.strip()), "")
        where = " in ".join(filter(None, (line_of(error), recorder.failed_at)))
        raise ScalingError(
            f"{network.name}: no formula: {type(error).__name__}: {text}" + (f" ({where})" if where else "")
        ) from error
    unknown = tuple(dict.fromkeys(op.place for op in ops if op.rule is None))
    free = {name: n for name, n in sizes.items() if name != "B" or batch != 1}
    return Scaling(
        network.name, macs, activations, free, trace.fixed(), trace.conditions(), unknown, network, length_dim
    )


_len = len


def _length(value: Any) -> Any:
    """The first size of a tensor as a symbol, of which Python's own `len` makes a number."""
    if isinstance(value, torch.Tensor) and value.dim() and isinstance(value.shape[0], torch.SymInt):
        return value.shape[0]
    return _len(value)


def _symbolic(leaf: Any, named: Sequence[tuple[int, Any]], dtype: torch.dtype) -> torch.Tensor:
    shape: list[Any] = list(leaf.shape)
    for dim, size in named:
        shape[dim] = size
    return torch.empty(shape, device="meta", dtype=leaf.dtype or dtype)


class _Trace:
    """Sizes as symbols of torch's ShapeEnv, and their expressions as code and text."""

    def __init__(self) -> None:
        from torch.fx.experimental.symbolic_shapes import ShapeEnv

        self.env = ShapeEnv(duck_shape=False)
        self.letters: dict[Any, str] = {}
        self.at: Recorder | None = None
        self.places: dict[str, str] = {}  # of a condition, where it was first decided
        trace = self

        class Guards(list[Any]):
            def append(self, guard: Any) -> None:
                trace.places.setdefault(str(guard.expr), trace._place())
                super().append(guard)

        self.env.guards = Guards(self.env.guards)

    def _place(self) -> str:
        """The module that runs, and the innermost line that is neither ours nor torch's."""
        frame: Any = sys._getframe(2)
        while frame is not None and not is_foreign(frame.f_code.co_filename):
            frame = frame.f_back
        line = f"{Path(frame.f_code.co_filename).name}, line {frame.f_lineno}" if frame is not None else ""
        return ", ".join(filter(None, (self.at.path if self.at is not None else "", line))) or "torch"

    def symbol(self, name: str, size: int) -> Any:
        from torch._guards import Source
        from torch.fx.experimental.symbolic_shapes import DimDynamic

        # Torch's own sources come with its compiler, whose import takes longer than a trace. `name` is a property in
        # some releases and a method in others.
        source: Any = type("Size", (Source,), {"name": _Name(name)})()
        symbol = self.env.create_symbol(size, source, dynamic_dim=DimDynamic.DYNAMIC)
        self.letters[symbol] = name
        return self.env.create_symintnode(symbol, hint=size, source=source)

    def quiet(self) -> Any:
        """Sizes are multiplied, not compared: no condition comes from the rules."""
        return self.env.suppress_guards()

    def formula(self, values: Sequence[Any]) -> Formula:
        import sympy

        found: dict[Any, int] = {}
        for value in values:
            expression = self.env.replace(value.node.expr if isinstance(value, torch.SymInt) else sympy.Integer(value))
            if not expression.free_symbols <= self.letters.keys():
                raise ScalingError("a size depends on values")
            for part in sympy.Add.make_args(expression):
                times, rest = part.as_coeff_Mul()
                found[rest] = found.get(rest, 0) + int(times)
        terms = [
            Term(n, self.factors(rest), self.code(rest))
            for rest, n in found.items() if n
        ]  # fmt: skip
        return Formula(tuple(sorted(terms, key=lambda term: -term.times)))

    def code(self, expression: Any) -> Any:
        from torch.utils._sympy.printers import PythonPrinter

        names = {s: type(s)(name, integer=True) for s, name in self.letters.items()}
        return compile(PythonPrinter().doprint(expression.xreplace(names)), "<size>", "eval")

    def factors(self, product: Any) -> tuple[str, ...]:
        """The factors as text: sizes of the input first, sums in brackets."""
        import sympy

        order = {symbol: k for k, symbol in enumerate(self.letters)}
        parts = sorted(
            (f for f in sympy.Mul.make_args(product) if f != 1),
            key=lambda f: (not f.is_Symbol, order.get(f, 0), str(f)),
        )
        return tuple(f"({self.text(f)})" if f.is_Add else self.text(f) for f in parts)

    def text(self, expression: Any) -> str:
        return _Words(self.letters).doprint(expression)

    def fixed(self) -> dict[str, str]:
        """Sizes for which the forward accepts only one value, with the place where that was decided."""
        import sympy

        found = {}
        for symbol, name in self.letters.items():
            if isinstance(self.env.replacements.get(symbol), sympy.Integer):
                guards = [g for g in self.env.guards if symbol in g.expr.free_symbols and isinstance(g.expr, sympy.Eq)]
                found[name] = (
                    f"decided in {self.places.get(str(guards[-1].expr))}" if guards else "decided by the forward"
                )
        return found

    def conditions(self) -> tuple[Condition, ...]:
        found: dict[str, Condition] = {}
        for guard in self.env.guards:
            text = self.text(guard.expr)
            found.setdefault(text, Condition(text, self.places.get(str(guard.expr), "torch"), self.code(guard.expr)))
        for name, asserts in self.env.deferred_runtime_asserts.items():
            for each in asserts:
                text = self.text(each.expr)
                found.setdefault(text, Condition(text, str(name), self.code(each.expr)))
        return tuple(found.values())


class _Name(str):
    def __call__(self) -> str:
        return str(self)


def _Words(letters: Mapping[Any, str]) -> Any:  # it makes a printer of a class that sympy brings
    from torch.utils._sympy.printers import PythonPrinter

    class Words(PythonPrinter):  # type: ignore[misc]
        def _print_Symbol(self, expr: Any) -> str:
            return letters.get(expr, str(expr))

        def _print_Add(self, expr: Any, order: str | None = None) -> str:
            parts = [str(self._print(part)) for part in sorted(expr.args, key=lambda part: part.is_number)]
            return " + ".join(parts).replace("+ -", "- ")

        def _print_Mul(self, expr: Any) -> str:
            return "*".join(f"({self._print(f)})" if f.is_Add else str(self._print(f)) for f in expr.args)

        def _print_FloorDiv(self, expr: Any) -> str:
            top, bottom = (f"({self._print(e)})" if e.is_Add else str(self._print(e)) for e in expr.args)
            return f"floor({top}/{bottom})"

        _print_CleanDiv = _print_FloorDiv

    return Words()


BUILT_IN = {
    "math": math, "torch": torch, "Max": max, "Min": min, "max": max, "min": min, "abs": abs, "round": round,
    "int": int, "float": float, "__builtins__": {},
}  # fmt: skip


def _value(code: Any, sizes: Mapping[str, int]) -> Any:
    return eval(code, BUILT_IN, dict(sizes))  # compiled by `_Trace.code` from torch's own expressions
