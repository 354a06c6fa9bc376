"""Networks: what a spec builds, that the seed alone decides the weights, and the numbers from outside."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
import torch
from golden_rows import rows, settings, tolerance
from hypothesis import given
from hypothesis import settings as limited
from hypothesis import strategies as st
from torch import Tensor, nn

from resattn.measures.audit import audit
from resattn.measures.captured import capture
from resattn.networks import catalog
from resattn.networks.catalog import named
from resattn.networks.network import Network, build
from resattn.networks.spec import NetworkSpec, SpecError, override

TINY = override(catalog.named("cifar-attention56"), {"width": "8", "input_shape": "3,16,16", "poolings": "2,1,1"})


# -- numbers from outside


@pytest.mark.parametrize("row", rows("networks.csv"), ids=lambda r: f"{r['network']}[{r['settings']}] {r['quantity']}")
def test_the_counts_that_others_printed(row: dict[str, str]) -> None:
    spec = override(catalog.named(row["network"]), settings(row["settings"]))
    found = audit(spec).quantities[row["quantity"]]
    assert found is not None
    printed = Decimal(row["printed"]) * Decimal(row["scale"])
    assert abs(Decimal(found) - printed) <= tolerance(row["printed"], row["scale"])


@pytest.mark.parametrize("name", ["attention56", "cifar-attention92", "resnet50", "cifar-resnet20-basic"])
def test_parameters_are_those_that_torch_holds(name: str) -> None:
    held = sum(p.numel() for p in build(catalog.named(name), device="meta").parameters())
    assert audit(name).quantities["params"] == held


# -- weights


def same(a: nn.Module, b: nn.Module) -> bool:
    states = a.state_dict(), b.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_the_seed_alone_decides_the_weights() -> None:
    torch.manual_seed(1)
    first = build(TINY, seed=3)
    torch.manual_seed(2)
    assert same(first, build(TINY, seed=3))
    assert not same(first, build(TINY, seed=4))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_building_leaves_the_global_random_state_alone(device: str) -> None:
    before = torch.get_rng_state()
    build(TINY, device=device)
    assert torch.equal(before, torch.get_rng_state())


def test_every_weight_is_set() -> None:
    network = build(TINY, seed=0)
    assert all(torch.isfinite(t).all() for t in network.state_dict().values())
    # He's normal over the outputs: sqrt(2 / (out channels * kernel area)). Source: he2015delving, equation 10.
    large = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.weight.numel() > 500]
    assert large
    for module in large:
        wanted = (2 / (module.out_channels * module.weight[0, 0].numel())) ** 0.5
        assert float(module.weight.detach().std()) == pytest.approx(wanted, rel=0.2)
    assert not network.head.fc.bias.any()


def test_on_meta_a_network_has_shapes_and_no_memory() -> None:
    network = build(catalog.named("attention92"), device="meta")
    assert {t.device.type for t in network.state_dict().values()} == {"meta"}
    assert network.spec == catalog.named("attention92")


# -- variants


@pytest.mark.parametrize("spec", [TINY, catalog.named("attention56")], ids=lambda s: s.name)
def test_naive_and_residual_twins_share_parameters_and_multiply_adds(spec: NetworkSpec) -> None:
    naive, residual = (audit(replace(spec, merge=merge)).quantities for merge in ("naive", "residual"))
    for quantity in ("params", "params_mask", "macs", "macs_mask", "weighted_layers", "longest_path"):
        assert naive[quantity] == residual[quantity]
    # M * T has one way through the trunk, T + M * T two.
    assert naive["n_paths"] < residual["n_paths"]


@pytest.mark.parametrize("spec", [TINY, replace(TINY, merge="naive")], ids=["residual", "naive"])
def test_a_closed_mask_leaves_the_trunk_or_nothing(spec: NetworkSpec) -> None:
    module = build(spec).eval().stage1.module1
    trunk = torch.randn(1, 32, 4, 4)
    merged = module.merge(trunk, torch.zeros_like(trunk))
    assert torch.equal(merged, trunk if spec.merge == "residual" else torch.zeros_like(trunk))


def gate(name: str, x: Tensor) -> Tensor:
    return build(replace(TINY, gate=name)).eval().stage1.module1.mask.gate(x)


def test_the_three_gates_are_those_of_the_paper() -> None:
    # wang2017, equations 4 to 6.
    x = torch.randn(2, 5, 4, 6)
    assert torch.allclose(gate("mixed", x), 1 / (1 + torch.exp(-x)))
    assert torch.allclose(gate("channel", x), x / x.square().sum(1, keepdim=True).sqrt())
    mean, std = x.mean((2, 3), keepdim=True), x.std((2, 3), keepdim=True, correction=0)
    assert torch.allclose(gate("spatial", x), torch.sigmoid((x - mean) / std), atol=1e-4)


def test_the_depth_does_not_depend_on_the_width() -> None:
    narrow, wide = (audit(replace(TINY, width=width)) for width in (8, 16))
    assert narrow.path_lengths == wide.path_lengths
    for quantity in ("longest_path", "trunk_depth", "weighted_layers", "receptive_field_px"):
        assert narrow.quantities[quantity] == wide.quantities[quantity]


def test_addresses_say_trunk_mask_and_merge() -> None:
    modules = {op.module for op in capture(build(TINY, device="meta"), (1, 3, 16, 16)).ops}
    for part in ("pre.unit1", "trunk.unit2", "mask.gate", "mask.head.conv2", "merge", "post.unit1"):
        assert any(m == f"stage1.module1.{part}" or m.startswith(f"stage1.module1.{part}.") for m in modules)


# -- a mask without attention


def test_a_constant_mask_is_one_value_for_each_channel() -> None:
    attention = override(named("cifar-attention56"), {"width": 8})
    constant = override(attention, {"mask": "constant"})
    network, twin = build(constant), build(attention)
    values = {n: p for n, p in network.named_parameters() if ".mask." in n}
    assert {n: tuple(p.shape) for n, p in values.items()} == {
        f"stage{k}.module1.mask.body.value": (1, c, 1, 1) for k, c in ((1, 32), (2, 64), (3, 128))
    }
    # All else is what the network with attention has, by the same names.
    rest = {n: p.shape for n, p in network.named_parameters() if n not in values}
    assert rest == {n: p.shape for n, p in twin.named_parameters() if ".mask." not in n}
    mask = network.get_submodule("stage1.module1.mask")
    x = torch.randn(2, 32, 8, 8)
    assert torch.equal(mask(x, x), torch.full((1, 32, 1, 1), 0.5))  # whatever the image
    with torch.no_grad():
        network.get_parameter("stage1.module1.mask.body.value").fill_(100)
    merge = network.get_submodule("stage1.module1.merge")
    assert torch.allclose(merge(x, mask(x, x)), 2 * x)  # 1 + M stays
    half = x.bfloat16()
    assert merge(half, mask(half, half)).dtype == torch.bfloat16  # the precision of the trunk


def test_a_constant_mask_has_no_layer_and_learns() -> None:
    found = audit("cifar-attention56[mask=constant]").quantities
    whole = audit("cifar-attention56").quantities
    assert (found["conv_layers_mask"], found["macs_mask"]) == (0, 0)
    assert found["longest_path"] == found["trunk_depth"] == whole["trunk_depth"] == 56
    assert found["macs"] == whole["macs"] - whole["macs_mask"]
    assert found["params"] == whole["params"] - whole["params_mask"] + 64 + 128 + 256
    network = build(override(named("cifar-attention56"), {"width": 4, "mask": "constant"}))
    network(torch.randn(4, 3, 32, 32)).square().sum().backward()
    gradients = [p.grad for n, p in network.named_parameters() if n.endswith("mask.body.value")]
    assert all(g is not None and g.abs().min() > 0 for g in gradients)


# -- whatever a spec describes can be built


@st.composite
def small_specs(draw: Any) -> NetworkSpec:
    n = draw(st.integers(1, 3))
    counts = st.lists(st.integers(0, 2), min_size=n, max_size=n).map(tuple)
    basic = draw(st.booleans())
    try:
        return NetworkSpec(
            name="drawn",
            input_shape=(draw(st.integers(1, 3)), draw(st.integers(5, 40)), draw(st.integers(5, 40))),
            classes=3,
            stem=draw(st.sampled_from(["imagenet", "cifar"])),
            width=draw(st.integers(1, 5)),
            unit="basic" if basic else "bottleneck",
            order=draw(st.sampled_from(["pre", "post"])),
            units=draw(counts), modules=draw(counts), tail=draw(counts), poolings=draw(counts),
            p=draw(st.integers(0, 2)), t=draw(st.integers(1, 2)), r=draw(st.integers(1, 2)),
            merge=draw(st.sampled_from(["residual", "naive"])),
            gate=draw(st.sampled_from(["mixed", "channel", "spatial"])),
            mask=draw(st.sampled_from(["hourglass", "local", "constant"])),
            pool_padding=draw(st.sampled_from(["ceil", "padded"])),
            corners=draw(st.sampled_from(["aligned", "half-pixel"])),
            shortcut=draw(st.sampled_from(["projection", "zero-pad"])),
            upsampling=draw(st.sampled_from(["bilinear", "nearest"])),
        )  # fmt: skip
    except SpecError:
        return TINY


@limited(max_examples=25)
@given(small_specs())
def test_what_a_spec_describes_can_be_built_and_run(spec: NetworkSpec) -> None:
    graph = capture(build(spec, device="meta"), (1, *spec.input_shape))
    assert graph.ops[graph.outputs[0]].shape == (1, spec.classes)
    for stage in spec.stages:
        last = [op for op in graph.ops if op.module.startswith(f"{stage.name}.")][-1]
        assert last.shape[1] == stage.channels
        assert min(last.shape[2:]) == stage.size


@limited(max_examples=10)
@given(small_specs())
def test_parts_add_up_to_the_whole(spec: NetworkSpec) -> None:
    found = audit(spec)
    q = found.quantities
    assert q["conv_layers"] == q["conv_layers_trunk"] + q["conv_layers_mask"] + q["conv_layers_shortcut"]
    assert q["params"] == sum(row["params"] for row in found.roles)
    assert q["macs"] == sum(row["macs"] for row in found.roles)
    assert q["n_paths"] == sum(found.path_lengths.values())
    assert q["longest_path"] == max(found.path_lengths) == len(found.longest_path_layers)
    assert q["shortest_path"] == min(found.path_lengths) <= q["trunk_depth"] <= q["longest_path"]
    assert q["params"] == sum(p.numel() for p in build(spec, device="meta").parameters())


def test_a_network_is_its_parts_in_order() -> None:
    network = build(TINY)
    assert isinstance(network, Network)
    assert [name for name, _ in network.named_children()] == ["stem", "stage1", "stage2", "stage3", "head"]
