"""Runs torch's shape kernels without importing torch's compiler.

Most kernels on meta are written in Python, for sizes that may be symbols. Their first call imports torch's compiler and
a computer algebra system, which takes as long as importing torch. In a capture every size is an integer, for which one
line each replaces what they need from there.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock


class _Symbol:
    """No object is one."""


def _are_equal(x: Any, y: Any) -> bool:
    if isinstance(x, Sequence) and isinstance(y, Sequence):
        return len(x) == len(y) and all(map(_are_equal, x, y))
    return bool(x == y)


# For plain integers: what torch.fx.experimental.symbolic_shapes does (a test compares).
PLAIN: Mapping[str, Any] = {
    "torch.fx.experimental.symbolic_shapes": SimpleNamespace(
        _advise_is_bounded=lambda size, most: None,
        _advise_is_size=lambda size: None,
        expect_true=bool,
        free_unbacked_symbols=lambda size: (),
        guard_int=int,
        guard_or_false=bool,
        guard_or_true=bool,
        guard_size_oblivious=bool,
        guarding_hint_or_throw=lambda size: size,
        has_guarding_hint=lambda size: True,
        is_nested_int=lambda size: False,
        statically_known_true=bool,
        sym_and=lambda *truths: all(truths),
        sym_eq=_are_equal,
        sym_or=lambda *truths: any(truths),
    ),
    "torch.utils._sympy.functions": SimpleNamespace(Max=max),
    "sympy": SimpleNamespace(Basic=_Symbol),
}
COMPILER = "torch._dynamo"
# The modules whose functions ask; what anything else imports is what it gets.
KERNELS = ("torch._decomp", "torch._meta_registrations", "torch._prims", "torch._refs")


@contextmanager
def plain_sizes() -> Iterator[None]:
    """Inside the block torch's shape kernels import neither; nothing changes if both are imported already."""
    if all(name in sys.modules for name in (*PLAIN, COMPILER)):
        yield
        return
    real = builtins.__import__
    guarded: list[Callable[..., Any]] = []

    def disable(function: Callable[..., Any], *_: Any, **__: Any) -> Callable[..., Any]:
        guarded.append(function)
        return function

    compiler = SimpleNamespace(_dynamo=SimpleNamespace(disable=disable))

    def plain(name: str, own: Any = None, local: Any = None, names: Any = (), level: int = 0) -> Any:
        # What a module imports as it is imported itself, it would keep.
        if own is not local and (name in PLAIN or name == COMPILER) and name not in sys.modules:
            by = own.get("__name__", "")
            if name == COMPILER and by == "torch._compile":
                return compiler
            known = PLAIN.get(name)
            if (by == "torch" or by.startswith(KERNELS)) and known and all(hasattr(known, n) for n in names or ()):
                return known
        return real(name, own, local, names, level)

    try:
        with mock.patch.object(builtins, "__import__", plain):
            yield
    finally:
        for function in guarded:  # torch keeps the answer there; the real one comes when the compiler is imported
            vars(function).pop("__dynamo_disable", None)
