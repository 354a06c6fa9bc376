"""Operators that public models use: each has a row, and those that multiply have their cost by its definition."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resattn.measures.captured import capture
from resattn.measures.cost import op_macs
from resattn.rules.table import RULES, layer_flags, unknown_ops


class Uses(nn.Module):
    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.ones(5, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.weight)


ENDS = torch.tensor([1, 4], dtype=torch.int32)
FREE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "nonzero": lambda x, w: (x > 0).nonzero(),
    "unique": lambda x, w: x.unique(),
    "unique of rows": lambda x, w: x.unique(dim=0),
    "histogram": lambda x, w: torch.histc(x, 4),
    "mse_loss": lambda x, w: F.mse_loss(x, x * 2),
    "cross_entropy": lambda x, w: F.cross_entropy(x[0], torch.zeros(4, dtype=torch.int64)),
    "fft": lambda x, w: torch.fft.irfft2(torch.fft.rfft2(x)),
    "stft": lambda x, w: torch.stft(x.flatten(1), 8, window=torch.ones(8), return_complex=True).abs(),
    "cdist": lambda x, w: torch.cdist(x, x, p=1),
    "euclidean": lambda x, w: torch.cdist(x.repeat(1, 9, 1), x.repeat(1, 9, 1)),
    "complex": lambda x, w: torch.view_as_real(torch.view_as_complex(x.view(1, 4, 4, 2)) * 1j),
    "svd": lambda x, w: torch.linalg.svd(x)[1],
    "bag": lambda x, w: F.embedding_bag(x.argmax(-1), w[0]),
}


@pytest.mark.parametrize("name", FREE)
def test_operators_without_a_product_have_a_row_and_cost_nothing(name: str) -> None:
    graph = capture(Uses(FREE[name]), torch.rand(1, 4, 8), device="cpu")
    assert not unknown_ops(graph)
    assert sum(op_macs(graph)) == 0


@pytest.mark.parametrize(
    ("function", "macs"),
    [
        # Each of 4 samples meets each of 5 * 8 * 8 weights once.
        (lambda x, w: F.bilinear(x, x, w), 4 * 5 * 8 * 8),
        # Each of 4 rows meets one of the matrices.
        (lambda x, w: torch._grouped_mm(x[0], w[:2], offs=ENDS), 4 * 8 * 8),
        (lambda x, w: torch._grouped_mm(x.expand(5, 4, 8), w), 5 * 4 * 8 * 8),
        (lambda x, w: torch.vdot(x[0, 0], w[0, 0]), 8),
    ],
    ids=["bilinear", "rows in groups", "a stack", "vdot"],
)
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_products_have_their_cost_and_are_layers(
    function: Callable[[Tensor, Tensor], Tensor], macs: int, device: str
) -> None:
    graph = capture(Uses(function), torch.rand(1, 4, 8), device=device)
    assert not unknown_ops(graph)
    assert sum(op_macs(graph)) == macs
    assert sum(layer_flags(graph)) == 1


def test_a_fused_recurrent_layer_costs_what_its_steps_do() -> None:
    weights = nn.LSTM(6, 5)._flat_weights

    def fused(x: Tensor, w: Tensor) -> Tensor:
        state = torch.zeros(1, 3, 5)
        return torch.lstm(x, (state, state), weights, True, 1, 0.0, False, False, False)[0]

    graph = capture(Uses(fused), torch.rand(7, 3, 6), device="cpu")
    assert "aten.mkldnn_rnn_layer" in [op.name for op in graph.ops]
    assert sum(op_macs(graph)) == 7 * 3 * 4 * 5 * (6 + 5)
    assert not unknown_ops(graph)


def test_operators_of_torchvision_have_rows() -> None:
    # Not loaded here: it needs the build of torch that it was made for.
    assert {"nms", "roi_align", "deform_conv2d"} <= {
        n.removeprefix("torchvision.") for n in RULES if "torchvision" in n
    }


@pytest.mark.parametrize("groups", [1, 2])
def test_a_deformable_convolution_costs_what_a_plain_one_does(groups: int) -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    ints = "int stride_h, int stride_w, int pad_h, int pad_w, int dil_h, int dil_w, int groups, int offset_groups"
    if not hasattr(torch.ops.torchvision, "deform_conv2d"):
        library.define(
            f"deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, {ints}, bool use_mask) -> Tensor"
        )
        library.impl("deform_conv2d", lambda x, weight, *_: x.new_empty(1, 6, 7, 7), "Meta")
    weight = nn.Parameter(torch.ones(6, 4 // groups, 3, 3))

    def deformed(x: Tensor, w: Tensor) -> Tensor:
        ways, none = x.new_zeros(1, 18, 7, 7), x.new_zeros(1, 0, 7, 7)
        return torch.ops.torchvision.deform_conv2d(
            x, weight, ways, none, x.new_zeros(6), 1, 1, 0, 0, 1, 1, groups, 1, False
        )

    graph = capture(Uses(deformed), (1, 4, 9, 9))
    assert sum(op_macs(graph)) == 6 * 7 * 7 * (4 // groups) * 9
    assert sum(layer_flags(graph)) == 1
