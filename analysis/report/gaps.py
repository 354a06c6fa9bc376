"""Gaps of a page: what is missing, and how to get it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Gap:
    """Something that is not shown: what is missing, how to get it, and the job whose page says more."""

    what: str
    remedy: str
    job: str | None = None


class MissingError(LookupError):
    """Something that the page needs is missing or cannot be used."""

    def __init__(self, gap: Gap) -> None:
        super().__init__(gap.what)
        self.gap = gap


@dataclass(frozen=True)
class Part(Generic[T]):
    """Facts, or the gap in their place."""

    facts: T | None = None
    gap: Gap | None = None


def part(read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Part[T]:
    """The result of `read`, or its gap. Rows that contradict each other give a gap in this part only."""
    try:
        return Part(read(*args, **kwargs))
    except MissingError as missing:
        return Part(gap=missing.gap)
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
        what = f"The part {read.__name__} cannot be shown ({type(error).__name__}: {error})."
        return Part(gap=Gap(what, "Its tables are in the folder of the study."))
