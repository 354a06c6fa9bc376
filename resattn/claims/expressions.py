"""Arithmetic on named numbers, exact and without `eval`. Standard library only.

    {attention56:params} / {t7.resnet152.params} - 1

The caller gives names in braces their values. The rest is `+ - * / **`, numbers, parentheses and the functions of
`FUNCTIONS`.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import comb


class ExpressionError(ValueError):
    """Text that is not an expression, or an expression without a value; the message gives the position of the error."""


@dataclass(frozen=True)
class Expression:
    """A parsed text: its syntax tree and the names in braces."""

    text: str
    tree: ast.expr
    names: Mapping[str, str]

    @property
    def references(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.names.values()))


# A root is not exact, and a huge exponent is a mistake that would fill the memory.
LARGEST_WHOLE = 1000


def _whole(number: Fraction) -> int:
    if number.denominator != 1 or abs(number) > LARGEST_WHOLE:
        raise ExpressionError(f"{number} is not an integer of at most {LARGEST_WHOLE}")
    return int(number)


def binomial(n: Fraction, low: Fraction, high: Fraction) -> Fraction:
    """P(low <= K <= high) of a fair binomial K of n trials: the share of paths with that many units."""
    trials, least, most = _whole(n), max(_whole(low), 0), _whole(high)
    return Fraction(sum(comb(trials, k) for k in range(least, most + 1)), 2**trials)


def power(base: Fraction, exponent: Fraction) -> Fraction:
    return base ** _whole(exponent)


IN_BRACES = re.compile(r"\{([^{}]*)\}")
FUNCTIONS: Mapping[str, tuple[Callable[..., Fraction], int]] = {"binomial": (binomial, 3)}
OPERATORS: Mapping[type[ast.AST], Callable[..., Fraction]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: power, ast.UAdd: operator.pos, ast.USub: operator.neg,
}  # fmt: skip


def parse(text: str) -> Expression:
    """The expression of a text. Raises: ExpressionError for anything outside the grammar."""
    names: dict[str, str] = {}
    if "_" in IN_BRACES.sub("", text):
        raise ExpressionError(f"{text!r} has a name outside braces")

    def placeholder(match: re.Match[str]) -> str:
        name = f"_{len(names)}"
        names[name] = match[1].strip()
        return f" {name} "

    try:
        tree = ast.parse(IN_BRACES.sub(placeholder, text).strip(), mode="eval").body
        _check(tree, names)
    except (SyntaxError, RecursionError, MemoryError):
        raise ExpressionError(f"{text!r} is no expression") from None
    return Expression(text, tree, names)


def _check(node: ast.expr, names: Mapping[str, str]) -> None:
    match node:
        case ast.Constant(value=bool()):
            pass
        case ast.Constant(value=int() | float()):
            return
        case ast.Name(id=name) if name in names:
            return
        case ast.UnaryOp(op=op, operand=operand) if type(op) in OPERATORS:
            return _check(operand, names)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            _check(left, names)
            return _check(right, names)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            if len(args) != FUNCTIONS[name][1]:
                raise ExpressionError(f"{name} takes {FUNCTIONS[name][1]} numbers, found {len(args)}")
            for argument in args:
                _check(argument, names)
            return None
    text = re.sub(r"\b_\d+\b", lambda match: f"{{{names[match[0]]}}}", ast.unparse(node))
    raise ExpressionError(f"{text!r} is not allowed (numbers, names in braces, + - * / **, {', '.join(FUNCTIONS)})")


def evaluate(expression: Expression, value_of: Callable[[str], Fraction]) -> Fraction:
    """The exact value, with each name in braces looked up once.

    Raises: ExpressionError on a division by zero or an exponent out of bounds; whatever `value_of` raises.
    """
    looked_up = {reference: value_of(reference) for reference in expression.references}
    values = {name: looked_up[reference] for name, reference in expression.names.items()}

    def value(node: ast.expr) -> Fraction:
        match node:
            case ast.Constant(value=number):
                # Through the text, so that 0.1 is a tenth.
                return Fraction(str(number))
            case ast.Name(id=name):
                return values[name]
            case ast.UnaryOp(op=op, operand=operand):
                return OPERATORS[type(op)](value(operand))
            case ast.BinOp(left=left, op=op, right=right):
                return OPERATORS[type(op)](value(left), value(right))
            case ast.Call(func=ast.Name(id=name), args=args):
                return FUNCTIONS[name][0](*map(value, args))
        raise AssertionError(f"unchecked node {ast.dump(node)}")

    try:
        return value(expression.tree)
    except ZeroDivisionError:
        raise ExpressionError(f"{expression.text!r} divides by zero") from None
