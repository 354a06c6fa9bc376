from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resattn.claims.expressions import ExpressionError, evaluate, parse

wholes = st.integers(-9, 99).map(lambda n: (f"({n})", Fraction(n)))
tenths = st.integers(0, 99).map(lambda n: (f"{n / 10}", Fraction(n, 10)))
names = st.sampled_from([("{attention56:params}", Fraction(7)), ("{t7.a.params}", Fraction(3, 2))])
SIGNS = {"+": Fraction.__add__, "-": Fraction.__sub__, "*": Fraction.__mul__}
VALUES = {"attention56:params": Fraction(7), "t7.a.params": Fraction(3, 2)}


def joined(parts):
    return st.tuples(parts, st.sampled_from(sorted(SIGNS)), parts).map(
        lambda p: (f"({p[0][0]} {p[1]} {p[2][0]})", SIGNS[p[1]](p[0][1], p[2][1]))
    )


@given(st.recursive(wholes | tenths | names, joined, max_leaves=12))
def test_value_is_that_of_exact_arithmetic(expression):
    text, value = expression
    assert evaluate(parse(text), VALUES.__getitem__) == value


@given(st.integers(0, 200).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_binomial_splits_the_whole(case):
    n, k = case
    below, above = (evaluate(parse(t), VALUES.get) for t in (f"binomial({n}, 0, {k})", f"binomial({n}, {k + 1}, {n})"))
    assert below + above == 1
    assert evaluate(parse(f"binomial({n}, {k}, {k})"), VALUES.get) == Fraction(comb(n, k), 2**n)


def test_precedence_powers_and_names_with_spaces():
    asked = []

    def value_of(name):
        asked.append(name)
        return Fraction(10)

    text = "2 + 3 * {attention56 @stage1.module1:depth} ** 2 / -4 - { x:y } - {x:y}"
    assert evaluate(parse(text), value_of) == 2 + Fraction(300, -4) - 20
    assert asked == ["attention56 @stage1.module1:depth", "x:y"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("__import__('os')", "has a name outside braces"),
        ("open('x')", "open('x')\" is not allowed"),
        ("a + 1", "'a' is not allowed"),
        ("{a:b}.real", "'{a:b}.real' is not allowed"),
        ("[1][0]", "is not allowed"),
        ("1 if 2 else 3", "is not allowed"),
        ("7 // 2", "'7 // 2' is not allowed"),
        ("True + 1", "'True' is not allowed"),
        ("1 +", "is no expression"),
        ("", "is no expression"),
        ("{a:b", "is no expression"),
        ("(" * 5000 + "1" + ")" * 5000, "is no expression"),
        ("binomial(3, 1)", "binomial takes 3 numbers, found 2"),
        ("binomial(*3, 1, 2)", "is not allowed"),
    ],
)
def test_outside_the_grammar(text, message):
    with pytest.raises(ExpressionError) as raised:
        parse(text)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / ({a:b} - 5)", "divides by zero"),
        ("0 ** -1", "divides by zero"),
        ("2 ** 0.5", "1/2 is not an integer of at most 1000"),
        ("2 ** 10 ** 9", "1000000000 is not an integer of at most 1000"),
        ("binomial(1e9, 1, 2)", "1000000000 is not an integer of at most 1000"),
    ],
)
def test_without_a_value(text, message):
    with pytest.raises(ExpressionError) as raised:
        evaluate(parse(text), lambda name: Fraction(5))
    assert message in str(raised.value)
