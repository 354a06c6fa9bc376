"""A step of training without running it: its cost and memory are those of a step that runs."""

from __future__ import annotations

import csv
import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from resattn import audit
from resattn.forecast.training import CUDA_NOTE, GROUPED, Training, TrainingError, training
from resattn.graph.inputs import Inputs
from resattn.measures.captured import Captured
from resattn.networks.classic import ZOO
from tests.authors import UNet, ViT
from tests.nets import NETS

HERE = Path(__file__).parent
SMALL: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "convolutions": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)),
                     (2, 3, 17, 19)),
    "U-Net": (lambda: UNet(8, 2), (2, 3, 32, 32)),
    "ViT": (lambda: ViT(32, 2, 2, 8, 32, 10), (2, 3, 32, 32)),
    "attention": (lambda: nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), (2, 7, 16)),
    "grouped": (lambda: nn.Conv2d(8, 8, 3, groups=4), (2, 8, 9, 9)),
    "transposed": (lambda: nn.ConvTranspose2d(8, 4, 3, stride=2), (2, 8, 9, 9)),
    "volume": (lambda: nn.Sequential(nn.Conv3d(2, 4, 3), nn.MaxPool3d(2)), (2, 2, 8, 8, 8)),
}  # fmt: skip


def of(model: nn.Module, shape: tuple[int, ...], **options: object) -> Training:
    return audit(model, torch.empty(shape)).training(**options)


def backward_by_torch(model: nn.Module, shape: tuple[int, ...]) -> tuple[int, int]:
    """Multiply-adds of the forward and the backward pass, as torch counts them on values."""
    model.train()
    with FlopCounterMode(display=False) as forward:
        loss = model(torch.randn(shape)).sum()
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    return forward.get_total_flops() // 2, backward.get_total_flops() // 2


@pytest.mark.parametrize("name", SMALL)
def test_multiply_adds_are_those_that_torch_counts_on_values_or_the_difference_is_named(name: str) -> None:
    make, shape = SMALL[name]
    found = of(make(), shape)
    assert found.unknown_ops == ()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        forward, backward = backward_by_torch(make(), shape)
    assert found.macs["forward"] == forward
    assert found.macs["backward"] + sum(found.differences.values()) == backward
    assert set(found.differences) == ({GROUPED} if name == "grouped" else set())


@pytest.mark.parametrize("name", ["vgg16", "resnet18", "resnext50_32x4d", "mobilenet_v2"])
def test_the_census_trains_at_the_cost_that_torch_counts(name: str) -> None:
    with torch.device("meta"):
        model = ZOO[name].make()
    found = audit(model, ZOO[name].input_shape).training(batch=2)
    for phase in ("forward", "backward"):
        named = sum(found.differences.values()) if phase == "backward" else 0
        assert found.macs[phase] + named == found.flopcounter[phase]


@pytest.mark.parametrize("name", SMALL)
def test_memory_on_meta_is_that_on_the_cpu_to_the_byte(name: str) -> None:
    make, shape = SMALL[name]
    # By default the CPU has a fused kernel for attention, which keeps no scores.
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        meta, cpu = (of(make(), shape, device=device) for device in ("meta", "cpu"))
    assert meta.memory == cpu.memory
    assert (meta.peak_bytes, meta.kept_bytes, meta.modules) == (cpu.peak_bytes, cpu.kept_bytes, cpu.modules)


@pytest.mark.parametrize("name", SMALL)
def test_modules_add_up_to_the_totals(name: str) -> None:
    make, shape = SMALL[name]
    found = of(make(), shape)
    table = found.by_module()
    assert sum(table.column("macs_forward")) == found.macs["forward"]
    assert sum(table.column("macs_backward")) == found.macs["backward"]
    assert sum(table.column("kept_bytes")) == found.kept_bytes
    assert max(table.column("peak_bytes")) <= found.peak_bytes == sum(found.memory.values())


def test_kept_activations_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 2, 1, bias=False))
    found = of(model, (2, 3, 5, 5))
    # The first convolution's result is only ReLU's input, and the last one's the sum's, which neither keeps; the loss is
    # one number.
    assert {m.module: m.kept_bytes for m in found.modules} == {"1": 4 * 2 * 4 * 25, "": 4, "0": 0, "2": 0}
    assert (found.params_bytes, found.gradients_bytes, found.optimizer_bytes) == (80, 80, 80)


def test_without_a_gpu_the_peak_on_cuda_is_not_measured_and_the_step_stays() -> None:
    make, shape = SMALL["convolutions"]
    plain, asked = of(make(), shape), of(make(), shape, cuda=True)
    assert asked.peak_bytes == plain.peak_bytes
    if not torch.cuda.is_available():
        assert asked.cuda_peak_bytes is None
        assert "peak on CUDA: not measured here: torch finds no CUDA device" in str(asked)
    assert "CUDA" not in str(plain)


def test_the_step_on_a_gpu_is_the_same_step_with_the_optimizers_state(monkeypatch: pytest.MonkeyPatch) -> None:
    # The allocator's calls are replaced; the step itself runs on the CPU.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda: {"requested_bytes.all.peak": 7})
    to_empty, on = nn.Module.to_empty, Inputs.on
    monkeypatch.setattr(nn.Module, "to_empty", lambda self, device: to_empty(self, device="cpu"))
    monkeypatch.setattr(Inputs, "on", lambda self, device, dtype: on(self, device.replace("cuda", "cpu"), dtype))
    found = of(SMALL["ViT"][0](), SMALL["ViT"][1], cuda=True)
    assert (found.cuda_peak_bytes, found.cuda_note) == (7, CUDA_NOTE)
    assert ("cuda_peak_bytes", 7, "bytes") in found.rows()


def test_the_reasons_why_the_peak_on_cuda_differs_hold_in_the_table_that_was_measured() -> None:
    tables = [csv.DictReader((HERE / f"{name}.csv").open(encoding="utf-8")) for name in ("training", "cuda")]
    ours, cuda = ({row["network"]: int(row["peak_bytes"]) for row in table} for table in tables)
    # Working memory: a network of convolutions needs no less on CUDA.
    assert all(ours[name] <= cuda[name] < 1.1 * ours[name] for name in ours if name != "ViT")
    # Scores: 12 blocks keep the probabilities of 12 heads of 197 x 197 positions for 8 images, in four bytes.
    assert ours["ViT"] - 12 * 8 * 12 * 197**2 * 4 <= cuda["ViT"] < ours["ViT"]


def test_each_optimizer_has_its_state_and_its_work() -> None:
    n = 6 * 5 + 5
    sgd, adamw = (of(nn.Linear(6, 5), (3, 6), optimizer=name) for name in ("sgd", "adamw"))
    assert (sgd.optimizer_bytes, adamw.optimizer_bytes) == (4 * n, 8 * n + 2 * 4)  # AdamW counts steps for each tensor
    assert sgd.optimizer_elements == 4 * n  # weight decay, momentum times and plus, step
    assert adamw.optimizer_elements > sgd.optimizer_elements
    own = of(nn.Linear(6, 5), (3, 6), optimizer=lambda params: torch.optim.SGD(params, lr=1.0, foreach=False))
    assert (own.optimizer, own.optimizer_bytes, own.optimizer_elements) == ("SGD", 0, n)


def test_a_frozen_layer_costs_no_gradient_of_its_weights() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    model[0].requires_grad_(False)
    found = of(model, (3, 4))
    assert found.macs == {"forward": 3 * 48, "backward": 3 * 16, "optimizer": 0}


def test_checkpointing_pays_in_the_backward_pass_for_what_it_saves() -> None:
    class Checkpointed(nn.Module):
        def __init__(self, is_on: bool) -> None:
            super().__init__()
            self.is_on, self.first = is_on, nn.Conv2d(3, 8, 1)
            self.block = nn.Sequential(*[nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Sigmoid()) for _ in range(6)])

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return checkpoint(self.block, x, use_reentrant=False) if self.is_on else self.block(x)

    off, on = (of(Checkpointed(is_on), (2, 3, 16, 16)) for is_on in (False, True))
    again = 6 * 2 * 256 * 8 * 8 * 9
    assert on.macs["forward"] == off.macs["forward"]
    assert on.macs["backward"] in (off.macs["backward"] + again, off.macs["backward"] + again - again // 6)
    assert on.kept_bytes < off.kept_bytes / 3


def test_the_model_is_left_as_it_was() -> None:
    model = UNet(4, 1).eval()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    of(model, (2, 3, 16, 16), device="cpu")
    assert not model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    gc.collect()


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (lambda: nn.ReLU(), {}, "none of model.parameters"),
        (lambda: nn.Linear(4, 2), {"optimizer": "sdg"}, "unknown optimizer 'sdg'"),
        (lambda: nn.Linear(4, 2), {"batch": 0}, "batch takes a number of at least 1"),
        (lambda: nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)), {"batch": 1}, "batch=2 or more"),
    ],
)
def test_what_cannot_train_is_one_line(make: Callable[[], nn.Module], options: dict[str, object], words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        of(make(), (3, 4), **options)


@pytest.mark.parametrize("name", ["RunTwice", "SeveralNames", "InPlace", "WeightNorm", "SeveralInputs"])
def test_hard_models_train_or_say_why(name: str) -> None:
    net = NETS[name]
    network = Captured.of(net.make(), *net.shapes)
    if name == "InPlace":  # autograd refuses what its forward writes over
        with pytest.raises(TrainingError, match="modified by an inplace operation"):
            training(network)
        return
    found = training(network)
    assert found.macs["backward"] + sum(found.differences.values()) == found.flopcounter["backward"]
