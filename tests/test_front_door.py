"""The front door: what `import resattn` offers, when it imports it, and in which forms `audit` takes its inputs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import resattn
from resattn.graph.errors import CaptureError
from resattn.graph.graph import Indices
from resattn.graph.inputs import Inputs
from resattn.measures.audit import audit
from resattn.measures.captured import capture
from resattn.targets import TargetError

ROOT = Path(__file__).parents[1]
X = torch.zeros(2, 3, 8, 8)


def test_a_name_is_what_its_module_defines() -> None:
    assert resattn.audit is audit
    assert set(resattn.DOOR) == set(resattn.__all__) <= set(dir(resattn))
    for name in resattn.DOOR:
        assert callable(getattr(resattn, name))
    with pytest.raises(AttributeError, match="no attribute 'adit' \\(one of: Audit, "):
        _ = resattn.adit


def test_a_type_checker_reads_the_same_table() -> None:
    stub = ast.parse((ROOT / "resattn" / "__init__.pyi").read_text(encoding="utf-8"))
    names = {a.name: n.module for n in stub.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert names == resattn.DOOR


def test_importing_it_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, resattn; dir(resattn); resattn.named('resnet50'); sys.exit(bool({'torch', 'numpy'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_an_audit_needs_nothing_but_torch_and_numpy() -> None:
    blocked = (
        "pandas",
        "scipy",
        "matplotlib",
        "sklearn",
        "lightning_fabric",
        "fvcore",
        "torchinfo",
        "analysis",
        "tqdm",
    )
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked})); import resattn; from resattn.cli import main\n"
        "print(resattn.audit('cifar-attention56'), resattn.match('cifar-attention56', 'longest_path'))\n"
        "from resattn.compare import layouts, census; sys.exit(main(['list', '--json']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -- inputs


def conv() -> nn.Module:
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3)))


def test_an_example_gives_shape_batch_and_type() -> None:
    found = audit(conv(), X)
    assert found.input_shape == (2, 3, 8, 8)
    assert found.quantities["macs"] == 2 * audit(conv(), (3, 8, 8)).quantities["macs"]
    tokens = audit(nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2)), torch.zeros(1, 7, dtype=torch.int64))
    assert tokens.quantities["weighted_layers"] == 1
    assert (
        tokens.quantities["params"]
        == audit(nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2)), Indices((7,))).quantities["params"]
    )


def test_strides_are_those_of_the_example() -> None:
    seen: list[Tensor] = []

    class Looks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x + 1

    x = X.to(memory_format=torch.channels_last)
    capture(Looks(), x)
    assert (seen[0].stride(), seen[0].dtype, seen[0].device.type) == (x.stride(), x.dtype, "meta")


Pair = namedtuple("Pair", "image size")


@dataclass
class Batch:
    image: Tensor
    name: str


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, batch: Any, *, scale: float, more: Any) -> Tensor:
        image = batch.image if isinstance(batch, Pair | Batch) else batch["image"]
        assert scale == 0.5
        assert more[1] is None
        return self.conv(image) * scale + self.conv(more[0])


@pytest.mark.parametrize(
    "batch",
    [{"image": X, "id": "a"}, UserDict(image=X), Pair(X, (8, 8)), Batch(X, "a")],
    ids=lambda b: type(b).__name__,
)
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_containers_and_keywords_reach_the_forward(batch: Any, device: str) -> None:
    found = audit(Nested(), batch, device=device, scale=0.5, more=[X, None])
    assert found.input_shape == (2, 3, 8, 8)
    # One tensor that is passed twice is one input.
    assert found.more_inputs == ()
    assert found.quantities["weighted_layers"] == 2
    assert not vars(X)


def test_examples_are_not_written_to() -> None:
    class Writes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.add_(1).relu()

    x = torch.zeros(1, 4)
    capture(Writes(), x, device="cpu")
    assert not x.any()


def test_inputs_are_grown_with_their_types() -> None:
    inputs = Inputs.of([{"a": X.double()}, torch.zeros(1, 5, dtype=torch.bool)], {"k": (X, 3)})
    assert inputs.shapes == ((2, 3, 8, 8), (1, 5), (2, 3, 8, 8))
    grown = inputs.with_shapes([(2, 3, 16, 16), (1, 5), (2, 3, 24, 24)])
    args, kwargs, tensors = grown.on("meta", torch.float32)
    assert args[0]["a"].dtype is torch.float64
    assert args[1].dtype is torch.bool
    assert kwargs["k"][1] == 3
    assert [tuple(t.shape) for t in tensors] == [(2, 3, 16, 16), (1, 5), (2, 3, 24, 24)]


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((torch.zeros(1, 5, 8, 8),), {}, r"RuntimeError: .*(in conv, input 1x5x8x8"),
        ((X, X), {}, r"TypeError: .*positional arguments? .*(in Sequential"),
        ((X,), {"mask": None}, r"TypeError: .*unexpected keyword argument 'mask' (in Sequential"),
    ],
)
def test_an_example_that_the_forward_does_not_take_gets_its_error_and_the_module(
    args: tuple[Any, ...], kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(CaptureError, match=message.replace("(in", r"\(in")):
        audit(conv(), *args, **kwargs)


@pytest.mark.parametrize("args", [(), (3,), ([],), ("a",)])
def test_without_an_input_there_is_no_audit(args: tuple[Any, ...]) -> None:
    with pytest.raises(TargetError, match="Sequential needs an input: example tensors, or a shape"):
        audit(conv(), *args)


def test_another_thing_is_no_target() -> None:
    with pytest.raises(TargetError, match="a int is not a name, a NetworkSpec or a torch.nn.Module"):
        audit(3, X)  # type: ignore[arg-type]


def test_crosscheck_takes_examples_and_keywords() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(144, 2)

        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return self.fc(self.norm(self.conv(x)).flatten(1)) * scale

    checks = resattn.crosscheck(Scaled(), X, scale=torch.ones(1))
    assert {c.unexplained for c in checks} == {0}


# -- what is printed


def test_an_audit_prints_as_its_module_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    found = audit("attention56")
    assert repr(found) == "Audit(attention56: complete, input 1x3x224x224)"
    lines = str(found).splitlines()
    assert lines[0] == "attention56: complete, input 1x3x224x224"
    assert "longest path 80; receptive field 1,155 px" in " ".join(lines[1:3]).replace("  ", "")
    assert any(line.split()[:2] == ["mask", "Mask"] and line.endswith("mask") for line in lines)
    assert max(map(len, lines)) <= 80
    assert "<table>" in found._repr_html_()
