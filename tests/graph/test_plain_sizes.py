"""Torch's compiler and its computer algebra are not imported by a capture, and whoever asks for them gets them."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from resattn.graph.plain_sizes import PLAIN

HEAVY = ("sympy", "torch._dynamo", "torch.fx.experimental.symbolic_shapes")


def _in_a_fresh_process(code: str) -> str:
    head = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
    head += f"import torch\nfrom torch import nn\nfrom resattn import audit\nHEAVY = {HEAVY!r}\n"
    done = subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return done.stdout


def test_no_audit_of_the_nets_or_of_our_networks_imports_the_compiler() -> None:
    found = _in_a_fresh_process(
        """
from nets import NETS
targets = {name: (net.make(), *map(torch.empty, net.shapes)) for name, net in NETS.items()}
targets |= {name: (name,) for name in ("attention56", "cifar-attention56", "cifar-resnet56-basic", "resnet50")}
assert not set(HEAVY) & sys.modules.keys()
for name, target in targets.items():
    audit(*target)
    if heavy := set(HEAVY) & sys.modules.keys():
        print(name, *sorted(heavy))
        break
print("audited", len(targets) > 40)
"""
    )
    assert found == "audited True\n"


def test_a_model_that_asks_for_the_compiler_gets_it() -> None:
    found = _in_a_fresh_process(
        """
class Asks(nn.Module):
    def forward(self, x):
        from torch.fx.experimental.symbolic_shapes import ShapeEnv, guard_or_false
        import torch._dynamo.config
        import sympy.core
        from sympy import Symbol
        assert Symbol("x").is_symbol and ShapeEnv and torch._dynamo.config.cache_size_limit
        assert not torch.compiler.is_compiling() and guard_or_false.__module__ == ShapeEnv.__module__
        return torch.cat([x.relu(), nn.functional.gelu(x)], 1)

a = audit(Asks(), torch.empty(1, 3, 8, 8))
print(a.status, *a.notes)
print(sorted(set(HEAVY) & sys.modules.keys()) == sorted(HEAVY), torch.compile(nn.ReLU(), backend="eager")(torch.ones(1)))
"""
    )
    assert found.splitlines() == ["complete", "True tensor([1.])"]


def test_nothing_stays_behind() -> None:
    found = _in_a_fresh_process(
        """
import builtins, gc
before = builtins.__import__
audit(nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU()), torch.empty(1, 3, 8, 8))
kept = [f for f in gc.get_objects() if callable(f) and "__dynamo_disable" in getattr(f, "__dict__", {})]
print(builtins.__import__ is before, kept)
"""
    )
    assert found == "True []\n"


NUMBERS = {
    "_advise_is_bounded": [(3, 7)],
    "_advise_is_size": [(3,)],
    "guard_int": [(3,), (0,)],
    "guarding_hint_or_throw": [(3,), (0,)],
    "free_unbacked_symbols": [(3,), ((3, 4),)],
    "has_guarding_hint": [(3,)],
    "is_nested_int": [(3,)],
    "sym_eq": [(3, 3), (3, 4), ((3, 4), (3, 4)), ((3, 4), (3, 5)), ((3,), (3, 4)), ([3], (3,))],
}


@pytest.mark.parametrize("name", sorted(vars(PLAIN["torch.fx.experimental.symbolic_shapes"])))
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_plain_integers_give_what_the_symbolic_functions_give(name: str) -> None:
    from torch.fx.experimental import symbolic_shapes

    real, plain = getattr(symbolic_shapes, name), getattr(PLAIN[symbolic_shapes.__name__], name)
    n_truths = (1, 2, 3) if name in ("sym_and", "sym_or") else (1,)
    truths = [case for n in n_truths for case in itertools.product((True, False), repeat=n)]
    for case in NUMBERS.get(name, truths):
        expected, found = real(*case), plain(*case)
        assert found == expected or (not isinstance(expected, bool | int) and not found and not expected)
