"""Capture: what is executed, between what data ran, and that the model is left as it was."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import settings as limited
from hypothesis import strategies as st
from nets import NETS, Apply, conv, made
from torch import Tensor, nn

from resattn.graph import capture as recording
from resattn.graph.errors import CaptureError, NeedsValuesError
from resattn.graph.graph import INPUT, OVERWRITE, Graph
from resattn.graph.inputs import Inputs
from resattn.graph.kernels import QUICK
from resattn.graph.walk import Index
from resattn.measures.captured import Captured, capture
from resattn.measures.cost import n_params, op_macs, read_params
from resattn.measures.paths import path_lengths
from resattn.networks.catalog import named
from resattn.networks.network import build
from resattn.rules.table import RULES, layer_flags, unknown_ops

ON_META = [name for name in NETS if name != "DataDependent"]
X = (1, 4, 8, 8)


def captured(name: str, device: str = "meta") -> Graph:
    model, shapes = made(name)
    return capture(model, *shapes, device=device)


def counts(graph: Graph) -> dict[str, Any]:
    layers = layer_flags(graph)
    return {
        "macs": sum(op_macs(graph)),
        "params": n_params(graph, read_params(graph)),
        "layers": [op.module for op, is_layer in zip(graph.ops, layers, strict=True) if is_layer],
        "lengths": path_lengths(graph, layers),
        "unknown": unknown_ops(graph),
    }


# -- one answer, however it is asked for


@pytest.mark.parametrize("name", ON_META)
def test_two_captures_are_equal(name: str) -> None:
    model, shapes = made(name)
    assert capture(model, *shapes) == capture(model, *shapes)


@pytest.mark.parametrize("name", ON_META)
def test_values_change_nothing(name: str) -> None:
    on_meta, on_cpu = counts(captured(name)), counts(captured(name, "cpu"))
    assert not on_meta["unknown"]
    assert on_meta == on_cpu


@pytest.mark.parametrize("name", ON_META)
def test_weights_change_nothing(name: str) -> None:
    model, shapes = made(name)
    with torch.device("meta"):
        bare = NETS[name].make()
    if name == "ConstantItem":
        with pytest.raises(NeedsValuesError):  # a constant on meta has no value
            capture(bare, *shapes)
    else:
        assert counts(capture(bare, *shapes)) == counts(capture(model, *shapes))


def test_nothing_is_computed_with_real_weights() -> None:
    # The map would take 25 TB.
    graph = capture(nn.Sequential(conv(3, 64, 7), nn.ReLU(inplace=True)), (1, 3, 10**5, 10**6))
    assert graph.ops[-1].shape == (1, 64, 10**5, 10**6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_model_gets_inputs_of_its_own_type(dtype: torch.dtype) -> None:
    assert len(capture(conv(4, 4).to(dtype), X).ops) == 2


def test_given_inputs_are_taken_as_they_are() -> None:
    embedding = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2))
    tokens = torch.zeros(1, 7, dtype=torch.int64)
    graph = capture(embedding, tokens, device="cpu")
    assert graph.ops[-1].shape == (1, 7, 2)
    assert not vars(tokens)


# -- what is executed


def test_operators_stand_at_the_module_in_whose_forward_they_ran() -> None:
    graph = captured("PlainLists")
    paths = [op.module for op in graph.ops if op.name == "aten.convolution"]
    assert paths == ["layers[0]", "by_name[head]", "_nested[0][0]"]


def test_a_module_run_twice_is_two_operators() -> None:
    assert [op.module for op in captured("RunTwice").ops if op.name != INPUT] == ["conv", "conv"]


def test_a_module_of_several_names_has_the_first() -> None:
    graph = captured("SeveralNames")
    assert [op.module for op in graph.ops if op.name != INPUT] == ["first", "first", "third"]
    assert set(graph.params) == {"first.weight"}


def test_what_is_defined_and_not_run_is_known() -> None:
    modules = {m.path: m for m in captured("DeadProjection").modules}
    assert not modules["projection"].is_executed
    assert modules["conv1"].is_executed
    assert modules["projection"].is_weighted
    assert captured("DeadProjection").params["projection.weight"] == 16


def test_a_module_that_no_walk_finds_is_in_evaluation_mode_too() -> None:
    model, shapes = made("HiddenModule")
    graph = capture(model, *shapes)
    norm = next(op for op in graph.ops if op.name == "aten.native_batch_norm")
    assert norm.arguments["training"] is False
    assert "aten.native_dropout" not in [op.name for op in graph.ops]


def test_attention_is_captured_as_the_operators_it_stands_for() -> None:
    enabled = torch.backends.mha.get_fastpath_enabled()
    names = {op.name for op in captured("EncoderLayer").ops}
    assert not any("_native_multi_head" in name or "_transformer_encoder" in name for name in names)
    assert torch.backends.mha.get_fastpath_enabled() is enabled


def test_a_scripted_and_a_traced_model_are_captured() -> None:
    model = nn.Sequential(conv(4, 4), nn.ReLU(), conv(4, 4))
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        scripted = torch.jit.script(copy.deepcopy(model))
    traced = torch.fx.symbolic_trace(model)
    for other in (scripted, traced):
        assert sum(op_macs(capture(other, X))) == sum(op_macs(capture(model, X)))


# -- between what data runs


def test_a_tensor_read_for_its_shape_is_no_edge() -> None:
    graph = captured("PhantomShape")
    resize = next(op for op in graph.ops if op.name.startswith("aten.upsample"))
    assert [graph.ops[i].module for i in resize.inputs] == ["small"]
    output = graph.ops[graph.outputs[0]]
    assert [graph.ops[i].name for i in output.inputs] == [resize.name]


def test_an_operand_read_twice_is_two_edges() -> None:
    graph = capture(Apply(lambda x: x * x), X)
    assert graph.ops[-1].inputs == (0, 0)


def test_each_result_of_an_operator_is_told_apart() -> None:
    graph = capture(Apply(lambda x: x.split([1, 3], 1)[1]), X)
    kept = capture(Apply(lambda x: x.chunk(2, 1)[1] + 1), X).ops[-1]
    assert graph.ops[-1].shapes == ((1, 1, 8, 8), (1, 3, 8, 8))
    assert kept.operands[0].slot == 1


@pytest.mark.parametrize("name", ["Interleaved", "ShiftedHalves", "ReadThroughOldView", "ZeroedRows"])
def test_a_write_is_seen_through_every_view(name: str) -> None:
    assert OVERWRITE in [op.name for op in captured(name).ops]


def test_a_write_to_the_other_half_is_not_seen() -> None:
    graph = captured("HalfWritten")
    assert OVERWRITE not in [op.name for op in graph.ops]
    last = graph.ops[-1]
    assert [graph.ops[i].name for i in last.inputs] == ["aten.slice"]


def test_what_a_write_replaces_is_not_read() -> None:
    graph = captured("Overwritten")
    written = graph.ops[graph.outputs[0]]
    assert [graph.ops[i].module for i in written.inputs] == ["kept"]


def test_an_address_used_again_is_another_tensor() -> None:
    # On the CPU a freed map's memory is handed out again: what was written to it must not cling to the address.
    class Reusing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(20):
                (x * 2).add_(1)
                x = x + torch.zeros(x.shape)
            return x

    graph = capture(Reusing(), (1, 1, 4, 4), device="cpu")
    assert path_lengths(graph, [False] * len(graph.ops)) == {0: 1}
    assert OVERWRITE not in [op.name for op in graph.ops]


def test_casts_made_before_the_capture_are_not_taken_for_constants() -> None:
    model = conv(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.randn(X))
        graph = capture(model, X, device="cpu")
    assert n_params(graph, read_params(graph)) == 144


# -- the model is left as it was


class Raising(nn.Module):
    """Raises, after a write to its buffer, in a module two levels down."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(2))
        self.body = nn.Sequential(nn.Sequential(nn.BatchNorm2d(4), Apply(self.fail)))

    def fail(self, x: Tensor) -> Tensor:
        self.calls += 1
        raise ValueError("no way\nfurther")

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_after_an_error_nothing_is_left(device: str) -> None:
    model = Raising().train()
    model.body[0][0].eval()
    flags = [m.training for m in model.modules()]
    call, fast = nn.Module.__call__, torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(CaptureError):
        capture(model, X, device=device)
    assert nn.Module.__call__ is call
    assert torch.backends.mha.get_fastpath_enabled() is fast
    assert [m.training for m in model.modules()] == flags
    assert torch.equal(model.calls, torch.zeros(2))
    assert torch.is_grad_enabled()
    assert not torch.utils._python_dispatch._get_current_dispatch_mode()


def test_an_error_says_what_where_and_for_which_input() -> None:
    with pytest.raises(CaptureError) as error:
        capture(Raising(), X)
    line = Raising.fail.__code__.co_firstlineno + 2
    assert str(error.value) == f"ValueError: no way (in body.0.1, test_capture.py, line {line}, input 1x4x8x8)"
    assert [op.name for op in error.value.graph.ops] == [INPUT, "aten.native_batch_norm"]


def test_an_input_that_the_model_refuses_gets_the_models_own_error() -> None:
    model = nn.Sequential(conv(4, 4), nn.Sequential(nn.Flatten(), nn.Linear(256, 2)))
    with pytest.raises(CaptureError, match=r"^RuntimeError: .* \(in 1\.1, input 1x4x9x9\)$"):
        capture(model, (1, 4, 9, 9))


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_buffers_are_given_back_their_values(device: str) -> None:
    model, shapes = made("Counting")
    before = copy.deepcopy(model.state_dict())
    assert capture(model, *shapes, device=device) == capture(model, *shapes, device=device)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("name", ["Counting", "InPlace", "MiniRAN"])
def test_a_captured_model_remembers_nothing(name: str, device: str) -> None:
    model, shapes = made(name)
    size = len(pickle.dumps(model))
    capture(model, *shapes, device=device)
    assert not any(vars(t) for t in (*model.parameters(), *model.buffers()))
    assert len(pickle.dumps(model)) == size
    copy.deepcopy(model)


class Keeping(nn.Module):
    """Keeps its gate to be looked at later."""

    def forward(self, x: Tensor) -> Tensor:
        self.last = x.sigmoid()
        return x * self.last


def test_a_map_that_a_model_keeps_does_not_keep_the_capture() -> None:
    model = Keeping()
    graph = capture(model, X, device="cpu")
    size = len(pickle.dumps(model))
    big = nn.Sequential(model, *(nn.Sigmoid() for _ in range(200)))
    capture(big, X, device="cpu")
    assert len(pickle.dumps(model)) < size + 100
    assert capture(model, X, device="cpu") == graph


def test_training_flags_are_given_back() -> None:
    model, shapes = made("MiniRAN")
    model.train()
    model.stem.eval()
    capture(model, *shapes)
    assert not model.stem.training
    assert all(m.training for n, m in model.named_modules() if not n.startswith("stem"))


# -- values that meta tensors lack


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: x if x.sum() > 0 else -x,
        lambda x: x * x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: torch.tensor(x.mean().tolist()),
        lambda x: x.masked_select(x > 0),
        lambda x: x.flatten().unique(),
    ],
    ids=["branch", "item", "mask", "nonzero", "tolist", "masked_select", "unique"],
)
def test_a_forward_that_needs_values_says_so(ask: Callable[[Tensor], Tensor]) -> None:
    model = nn.Sequential(conv(4, 4), Apply(ask))
    with pytest.raises(NeedsValuesError, match=r"needs the value .* capture on the device 'cpu' \(in 1, test_capture"):
        capture(model, X)
    assert capture(model, X, device="cpu").ops


def test_a_branch_on_values_is_captured_as_it_was_taken() -> None:
    assert [op.module for op in captured("DataDependent", "cpu").ops if op.name == "aten.convolution"] == ["conv"] * 2


def test_constants_have_values_also_on_meta() -> None:
    assert sum(op.name == "aten.convolution" for op in captured("ConstantItem").ops) == 2


def test_a_lazy_module_is_to_be_run_once_before() -> None:
    with pytest.raises(CaptureError, match=r"1\.weight has no shape yet: call the lazy module once before"):
        capture(nn.Sequential(conv(4, 4), nn.LazyConv2d(4, 3)), X)


# -- the quick shapes are torch's own


def by_torch(function: Any, *args: Any, **kwargs: Any) -> Any:
    with torch.no_grad():
        return function(*args, **kwargs)


def described(result: Any) -> list[tuple[Any, ...]]:
    tensors = [result] if isinstance(result, Tensor) else list(result)
    return [(tuple(t.shape), t.dtype, t.device.type, strides(t)) for t in tensors if t.numel()]


def strides(tensor: Tensor) -> list[int]:
    # Along a dimension of one element any stride will do.
    return [s for n, s in zip(tensor.shape, tensor.stride(), strict=True) if n > 1]


SIZES = st.integers(1, 12)
LAYOUTS = st.sampled_from([torch.contiguous_format, torch.channels_last])


@st.composite
def maps(draw: Any) -> Tensor:
    shape = (draw(st.integers(1, 2)), draw(st.sampled_from([1, 2, 4])), draw(SIZES), draw(SIZES))
    dtype = draw(st.sampled_from([torch.float32, torch.float32, torch.float64, torch.bfloat16]))
    return torch.empty(shape, dtype=dtype, device="meta").to(memory_format=draw(LAYOUTS))


def agree(function: Any, *args: Any, **kwargs: Any) -> None:
    """Whatever the quick rule says is what torch says; it may leave the answer to torch."""
    try:
        wanted = by_torch(function, *args, **kwargs)
    except (RuntimeError, IndexError):
        wanted = None
    found = QUICK[function](*args, **kwargs)
    if found is not None:
        assert wanted is not None
        assert described(found) == described(wanted)


aten = torch.ops.aten
PAIRS = st.tuples(st.integers(1, 4), st.integers(1, 4)).map(list)
PADS = st.tuples(st.integers(0, 3), st.integers(0, 3)).map(list)


@limited(max_examples=150)
@given(maps(), st.integers(1, 4), PAIRS, PAIRS, PADS, st.sampled_from([[1, 1], [2, 1], [2, 2]]), st.data())
def test_quick_convolutions(
    x: Tensor, c: int, kernel: Any, stride: Any, padding: Any, dilation: Any, data: st.DataObject
) -> None:
    groups = data.draw(st.sampled_from([1, 2]))
    c_in = data.draw(st.sampled_from([x.shape[1] // groups, 3]))
    weight = torch.empty(c * groups, c_in, *kernel, device="meta", dtype=x.dtype)
    bias = data.draw(st.sampled_from([None, torch.empty(c * groups, device="meta", dtype=x.dtype)]))
    transposed = data.draw(st.sampled_from([False, False, True]))
    agree(aten.convolution.default, x, weight, bias, stride, padding, dilation, transposed, [0, 0], groups)


@limited(max_examples=150)
@given(maps(), PAIRS, PAIRS, PADS, st.booleans(), st.sampled_from([1, [1, 1], [2, 2]]))
def test_quick_poolings(x: Tensor, kernel: Any, stride: Any, padding: Any, ceil: bool, dilation: Any) -> None:
    agree(aten.max_pool2d_with_indices.default, x, kernel, stride, padding, dilation, ceil)
    agree(aten.max_pool2d_with_indices.default, x, kernel, [], padding, 1, ceil)


@limited(max_examples=60)
@given(maps(), maps(), st.tuples(SIZES, SIZES).map(list), st.booleans())
def test_quick_resizes_sums_and_means(x: Tensor, y: Tensor, size: list[int], keep: bool) -> None:
    agree(aten.upsample_bilinear2d.default, x, size, keep)
    agree(aten.upsample_nearest2d.default, x, size)
    for other in (x, y, 2, 1.5, 1j, torch.tensor(2.0)):
        agree(aten.add.Tensor, x, other)
        agree(aten.mul.Tensor, x, other)
    agree(aten.sigmoid.default, x)
    for dims in ([2, 3], [-1], [0, 2], [], None):
        agree(aten.mean.dim, x, dims, keep)
    agree(aten.mean.dim, x, [2, 3], keep, dtype=torch.float64)


@limited(max_examples=60)
@given(maps(), st.booleans(), st.booleans())
def test_quick_batch_norms(x: Tensor, training: bool, is_affine: bool) -> None:
    stats = [torch.empty(x.shape[1], device="meta", dtype=x.dtype) for _ in range(4)]
    weight, bias = stats[:2] if is_affine else (None, None)
    found = QUICK[aten.native_batch_norm.default](x, weight, bias, *stats[2:], training, 0.1, 1e-5)
    if found is not None:
        wanted = F.batch_norm(x, stats[2], stats[3], weight, bias, training)
        assert not training
        # The two other results are empty in evaluation, as on the CPU.
        assert described(found) == described(wanted)
    wrong = torch.empty(x.shape[1] + 1, device="meta", dtype=x.dtype)
    assert QUICK[aten.native_batch_norm.default](x, wrong, bias, *stats[2:], False, 0.1, 1e-5) is None


@limited(max_examples=60)
@given(SIZES, SIZES, SIZES, SIZES, st.booleans())
def test_quick_products(n: int, k: int, other: int, m: int, matches: bool) -> None:
    x, y = torch.empty(n, k, device="meta"), torch.empty(k if matches else other, m, device="meta")
    agree(aten.addmm.default, torch.empty(m, device="meta"), x, y)
    agree(aten.addmm.default, torch.empty(m, device="meta"), x, torch.empty(m, k, device="meta").t())
    agree(aten.addmm.default, torch.empty(m, device="meta"), x.double(), y)


def test_quick_grouped_products() -> None:
    # Torch's meta kernel takes bfloat16 alone: the answer is that of the CPU.
    ends = torch.tensor([2, 3, 8], dtype=torch.int32)
    stack, rows = torch.ones(3, 8, 16), torch.ones(8, 8)
    for x, y, offs in (
        (rows, stack, ends),
        (stack, stack.mT.contiguous(), None),
        (rows, rows, ends),
        (stack, torch.ones(16, 8), ends),
    ):
        wanted = torch._grouped_mm(x, y, offs=offs)
        found = QUICK[aten._grouped_mm.default](*(None if t is None else t.to("meta") for t in (x, y, offs)))
        assert (tuple(found.shape), found.dtype) == (tuple(wanted.shape), wanted.dtype)


def test_every_quick_rule_is_compared() -> None:
    compared = {
        aten.convolution.default, aten.max_pool2d_with_indices.default, aten.upsample_bilinear2d.default,
        aten.upsample_nearest2d.default, aten.add.Tensor, aten.mul.Tensor, aten.sigmoid.default, aten.mean.dim,
        aten.native_batch_norm.default, aten.addmm.default, aten._grouped_mm.default,
    }  # fmt: skip
    assert set(QUICK) == compared


def test_functional_calls_are_seen() -> None:
    weight = nn.Parameter(torch.ones(2, 4, 3, 3))
    graph = capture(Apply(lambda x: F.conv2d(x, weight)), X)
    (name,) = graph.ops[-1].params
    assert graph.params[name] == weight.numel()


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_modules_under_vmap_are_captured(device: str) -> None:
    first, second = nn.Linear(8, 4), nn.Linear(8, 4)

    class Ensemble(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.of = nn.ModuleList((first, second))

        def forward(self, x: Tensor) -> Tensor:
            params, _ = torch.func.stack_module_state(list(self.of))
            both = torch.vmap(lambda p: torch.func.functional_call(first, p, (x,)))(params)
            return both + torch.vmap(first, in_dims=0)(x)

    graph = capture(Ensemble(), (3, 8), device=device)
    assert sum(op_macs(graph)) == 3 * 3 * 8 * 4
    assert n_params(graph, read_params(graph)) == 2 * 9 * 4


def test_what_is_compiled_runs_as_it_was_written() -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("compiled")

    model = nn.Sequential(torch.compile(conv(4, 4), backend=never), conv(4, 4))
    graph = capture(model, X)
    assert [op.kind for op in graph.ops] == ["input", "convolution", "convolution"]


def test_of_two_branches_the_chosen_one_is_recorded() -> None:
    first, second = nn.Linear(8, 4), nn.Linear(8, 4)

    def branch(x: Tensor) -> Tensor:
        return torch.cond(torch.tensor(2, device=x.device) > 3, first, second, (x,))

    model = Apply(branch)
    model.first, model.second = first, second
    graph = capture(model, (1, 8))
    assert read_params(graph) == {"second.weight", "second.bias"}
    assert [m.path for m in graph.modules if m.is_executed] == ["", "second"]


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_an_operator_that_takes_functions_is_refused_by_name() -> None:
    from torch.nn.attention.flex_attention import flex_attention

    x = torch.rand(1, 2, 4, 8)
    with pytest.raises(CaptureError, match="flex_attention takes functions"):
        capture(Apply(lambda x: flex_attention(x, x, x)), x, device="cpu")


def test_an_operator_that_meta_lacks_needs_values() -> None:
    rows = torch.eye(8).to_sparse()
    with pytest.raises(
        NeedsValuesError, match=r"aten\.\w+ does not run on the meta device: capture on the device 'cpu'"
    ):
        capture(Apply(lambda x: rows @ x.t()), (1, 8))


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_a_deep_copy_comes_from_what_is_copied(device: str) -> None:
    a, b, constant = conv(4, 4), conv(4, 2), torch.arange(3)

    def forward(x: Tensor) -> Tensor:
        kept = copy.deepcopy({"maps": [a(x)], "constant": constant, "made": torch.arange(5, device=x.device)})
        assert (kept["constant"].sum(), kept["made"].sum()) == (3, 10)
        return b(kept["maps"][0])

    model = Apply(forward)
    model.a, model.b = a, b
    ops = capture(model, X, device=device).ops
    first, second = (i for i, op in enumerate(ops) if op.name == "aten.convolution")
    assert any(first in ops[source].inputs for source in ops[second].inputs)


# -- passes after the first


@pytest.mark.parametrize("name", ON_META)
def test_a_replay_runs_what_a_capture_ran(name: str) -> None:
    """Also after a pass on another input has filled what is kept of results."""
    model, shapes = made(name)
    index, inputs, log = Index(model), Inputs.of(shapes), []
    recording.capture(model, *shapes, rule_of=RULES.get, index=index, log=log)
    assert recording.replay(index.current, inputs, RULES.get) == log
    assert capture(model, *shapes) == captured(name)


class KeepsATable(nn.Module):
    """Makes its table at the first call and keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.table: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None:
            self.table = torch.tensor([1.0, 2.0]).repeat(2)
        return x * self.table.sum()


class TakesTurns(nn.Module):
    """Runs one operator more at every other call."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x.relu().tanh() if self.calls % 2 else x.relu()


@pytest.mark.parametrize(("model", "where"), [(KeepsATable(), ""), (TakesTurns(), "the model")])
def test_a_second_pass_that_differs_is_named(model: nn.Module, where: str) -> None:
    assert Captured.of(model, X).instability == where


@pytest.mark.parametrize(
    "name",
    [
        "cifar-attention56[merge=naive, mask=local]", "cifar-resnet20-basic", "resnet50", "attentioninception56",
        "attentionnext56", "wrn-16-8", "port:tengshaofeng:cifar-attention56", "port:gluoncv:attention56",
    ],
)  # fmt: skip
def test_nothing_that_is_built_from_a_spec_changes_between_calls(name: str) -> None:
    spec = named(name)  # so the audit of a name needs no second pass
    assert Captured.of(build(spec, device="meta"), (1, *spec.input_shape)).instability == ""


class Grows(nn.Module):
    """Makes a module at the first call."""

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "late"):
            self.late = conv(4, 4)
        return self.late(x)  # type: ignore[no-any-return]


def test_a_module_that_a_first_pass_makes_is_known_to_the_second() -> None:
    found = Captured.of(Grows(), X)
    assert found.graph.ops[-1].module == "Conv2d"
    again = found.again(found.inputs, "meta")
    assert again.ops[-1].module == "late"
    assert again.ops[-1].params == ("late.weight",)


@pytest.mark.parametrize("is_on", [True, False])
def test_collection_of_garbage_is_as_it_was(is_on: bool) -> None:
    was_on = gc.isenabled()
    (gc.enable if is_on else gc.disable)()
    try:
        with recording.without_collection():
            assert not gc.isenabled()
        assert gc.isenabled() is is_on
    finally:
        (gc.enable if was_on else gc.disable)()
