"""The counts that other tools print for a network: their counting rules as tables, applied to our graph.

A tool is a row of `TOOLS`; a rule of a tool is a `Count`: what it counts, how much, and a function of one executed
operator. This module imports none of the tools, so it gives a number also for a tool that is not installed or fails.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import flop_registry

import resattn
from resattn.graph.graph import INPUT, Module, Op, Operand, Shape
from resattn.graph.walk import modules_of
from resattn.measures.captured import Captured
from resattn.measures.cost import all_macs
from resattn.rules.rule import macs_of


class ToolError(ValueError):
    """There is no table of rules for a tool (the message lists the tools), or its rules cannot be applied."""


@dataclass(frozen=True)
class Counted:
    """The number that a tool prints for a network, and its parts.

    `value`: None if a rule of the tool cannot be applied; `reasons` say why. `parts`: how much each rule counts.
    `doubts`: what the tool counts in addition if an operator is called in a way that the graph does not show. `macs`:
    our multiply-adds. `causes`: the differences between `macs` and the sum of the parts, in the tool's unit.
    """

    target: str
    tool: str
    version: str
    value: int | None
    unit: str
    definition: str
    parts: Mapping[str, int]
    causes: Mapping[str, int]
    macs: int
    input_shape: Shape
    reasons: tuple[str, ...] = ()
    doubts: Mapping[str, int] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """A sentence for a paper: the number, the tool with its version, and what it counts."""
        size = "x".join(map(str, self.input_shape))
        if self.value is None:
            return f"{self.tool} {self.version} cannot be followed for {self.target}: {'; '.join(self.reasons)}."
        doubt = "".join(f" If {text}: up to {n:,} more." for text, n in self.doubts.items())
        return (
            f"{self.value:,} {self.unit} as {self.tool} {self.version} counts them, for an input of {size}: "
            f"{self.definition}.{doubt} Multiply-adds of convolutions and matrix products alone: {self.macs:,} "
            f"(resattn {resattn.__version__})."
        )

    def __str__(self) -> str:
        return self.sentence

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "sentence": self.sentence}


@dataclass(frozen=True)
class Sight:
    """A captured network as a tool sees it: as classes of modules, or as calls of functions."""

    network: Captured

    @cached_property
    def modules(self) -> Mapping[str, nn.Module]:
        """The modules that a walk over registered children finds, by path; of replaced ones, the captured ones."""
        registered = {id(m) for m in self.network.model.modules()}
        found = modules_of(self.network.model)
        return {path: m for path, m in found if id(m) in registered and path in self.records}

    def module(self, op: Op) -> nn.Module | None:
        return self.modules.get(op.module)

    def label(self, op: Op) -> str:
        """What an operator belongs to: a module without children, or a call in the forward of one with children."""
        if _is_attention(self, op):
            return "scaled_dot_product_attention"
        module = self.module(op)
        is_leaf = module is not None and not any(module.children())
        return type(module).__name__ if is_leaf else _plain(op).strip("_")

    @cached_property
    def records(self) -> Mapping[str, Module]:
        return {m.path: m for m in self.network.graph.modules}

    @cached_property
    def last(self) -> Mapping[str, Op]:
        """The last operator of each module; it may be an operator on constants."""
        graph = self.network.graph
        return {op.module: op for op in (*graph.constants, *graph.ops) if op.name != INPUT}

    @cached_property
    def visits(self) -> Counter[int]:
        """How often a walk over `children` meets each module: a shared module once in each parent."""
        found: Counter[int] = Counter()

        def walk(module: nn.Module) -> None:
            found[id(module)] += 1
            for child in module.children():
                walk(child)

        walk(self.network.model)
        return found

    @cached_property
    def fused(self) -> frozenset[int]:
        """The operators into which a call of scaled_dot_product_attention is decomposed on meta."""
        readers: dict[int, list[Op]] = {}
        for op in self.network.graph.ops:
            for i in op.inputs:
                readers.setdefault(i, []).append(op)
        found: set[int] = set()
        for op in self.network.graph.ops:
            if op.name == "aten._safe_softmax":
                found.add(op.index)
                for step in (
                    lambda o: [self.network.graph.ops[i] for i in o.inputs],
                    lambda o: readers.get(o.index, []),
                ):
                    found |= self._products(op, step)
        return frozenset(found)

    def _products(self, op: Op, step: Callable[[Op], Iterable[Op]]) -> set[int]:
        """From a softmax to the nearest products, through views and scales."""
        found: set[int] = set()
        waiting = list(step(op))
        while waiting:
            at = waiting.pop()
            if at.index in found:
                continue
            found.add(at.index)
            if at.kind in ("view", "pointwise"):
                waiting += step(at)
        return {i for i in found if self.network.graph.ops[i].kind == "matmul"}


Amount = Callable[[Sight, Op], int]
Where = Callable[[Sight, Op], bool]


@dataclass(frozen=True)
class Count:
    """One rule of a tool: which operators it applies to, what it counts, and the amount for one operator.

    `is_of_products`: it counts convolutions or matrix products, as our multiply-adds do.
    """

    what: str
    per: str
    of: Amount
    is_of_products: bool = False


@dataclass(frozen=True)
class Tool:
    """One tool.

    `per_mac`: units of the tool for one multiply-add. `unseen`: what it counts as zero. `assumes`: which calls the
    model is assumed to make if the graph does not distinguish them. `hard`: classes of modules for which its rules
    cannot be applied, with the reason.
    """

    name: str
    version: str
    unit: str
    definition: str
    counts: tuple[Count, ...]
    unseen: str
    assumes: str = ""
    hard: Mapping[type[nn.Module] | str, str] = field(default_factory=dict)
    doubts: Mapping[str, Amount] = field(default_factory=dict)
    per_sample: bool = False
    per_mac: int = 1


def counted_like(network: Captured, tool: str) -> Counted:
    """The number that a tool prints for a captured network, computed from our graph by the tool's rules.

    Raises: ToolError for a tool without a table.
    """
    if tool not in TOOLS:
        near = get_close_matches(tool, TOOLS)
        words = f"nearest: {', '.join(near)}" if near else f"one of: {', '.join(TOOLS)}"
        raise ToolError(f"no counting rules of {tool!r} are known ({words})")
    row, sight = TOOLS[tool], Sight(network)
    executed = {path: m for path, m in sight.modules.items() if sight.records[path].is_executed}
    reasons = [
        f"{type(m).__name__} ({path or 'the model'}) {reason}"
        for path, m in executed.items()
        if (reason := row.hard.get(type(m)) or row.hard.get(_full_name(m)))
    ]
    reasons += [f"{op.place} has no rule of ours" for op in network.unknown]
    ops = (*(op for op in network.graph.ops if op.name != INPUT), *network.graph.constants)
    groups: dict[tuple[str, str], list[Op]] = {}
    for op in ops:
        groups.setdefault((op.module, sight.label(op)), []).append(op)
    parts: Counter[str] = Counter()
    causes: Counter[str] = Counter()
    for (_, label), group in groups.items():
        ours = row.per_mac * sum(map(macs_of, group))
        for count in row.counts:
            if n := sum(count.of(sight, op) for op in group):
                parts[count.what] += n
                rule_of = f"{count.what}, {count.per}"
                if ours and count.is_of_products:
                    causes[f"{label}: {rule_of}"] += n - ours
                    ours = 0
                else:
                    causes[rule_of] += n
        causes[f"{label}, not counted"] -= ours
    doubts = {text: sum(of(sight, op) for op in ops) for text, of in row.doubts.items()}
    macs, batch = all_macs(network.graph), network.shapes[0][0] if row.per_sample else 1
    parts = Counter({what: n // batch for what, n in parts.items()})
    causes["one sample of the batch"] = sum(parts.values()) - row.per_mac * macs - sum(causes.values())
    return Counted(
        network.name, row.name, row.version, None if reasons else sum(parts.values()), row.unit, row.definition,
        dict(parts), {cause: n for cause, n in causes.items() if n}, macs, network.shapes[0], tuple(reasons),
        {text: n for text, n in doubts.items() if n},
    )  # fmt: skip


def _full_name(module: nn.Module) -> str:
    """A class by its full name: tools know some classes of libraries that need not be installed here."""
    return f"{type(module).__module__}.{type(module).__name__}"


# -- what a rule is applied to


def _read(op: Op) -> Shape:
    """The shape of the data that an operator reads."""
    return next((o.shape for o in op.operands if o.producer is not None), op.shape)


def _out(sight: Sight, op: Op) -> int:
    return prod(op.shape)


def _in(sight: Sight, op: Op) -> int:
    return prod(_read(op))


def _macs(sight: Sight, op: Op) -> int:
    return macs_of(op)


def times(n: int, amount: Amount) -> Amount:
    return lambda sight, op: n * amount(sight, op)


def _plain(op: Op) -> str:
    return op.name.removeprefix("aten.").removesuffix("_")


def named(*names: str) -> Where:
    """Selects the operators with these names."""
    wanted = frozenset(names)
    return lambda sight, op: _plain(op) in wanted


def in_module(*classes: type[nn.Module]) -> Where:
    """Selects the operators that compute, in modules of exactly these classes."""
    return lambda sight, op: type(sight.module(op)) in classes and op.kind not in ("view", "shape", "index")


def rule(what: str, per: str, where: Where, amount: Amount, *, visits: bool = False) -> Count:
    """A rule that counts an amount for the operators in `where`; `visits`: each time the tool's walk meets a module."""

    def of(sight: Sight, op: Op) -> int:
        if not where(sight, op):
            return 0
        return amount(sight, op) * (sight.visits[id(sight.module(op))] if visits else 1)

    return Count(what, per, of)


def products(what: str, per: str, where: Where, amount: Amount, *, visits: bool = False) -> Count:
    """A rule for convolutions or matrix products."""
    return replace(rule(what, per, where, amount, visits=visits), is_of_products=True)


PRODUCTS = ("convolution", "matmul")
NORMS = ("native_batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit", "batch_norm",
         "cudnn_batch_norm", "miopen_batch_norm", "_batch_norm_no_update", "_batch_norm_with_update")  # fmt: skip
ACTIVATIONS = (nn.ReLU, nn.PReLU, nn.ELU, nn.LeakyReLU, nn.ReLU6, nn.GELU)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
RECURRENT = (nn.RNN, nn.GRU, nn.LSTM, nn.RNNCell, nn.GRUCell, nn.LSTMCell)
AVERAGES = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
ADAPTIVE_AVERAGES = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
POOLINGS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, *AVERAGES, *ADAPTIVE_AVERAGES,
            nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)  # fmt: skip
UPSAMPLES = (nn.Upsample, nn.UpsamplingBilinear2d, nn.UpsamplingNearest2d)


def _is_layer(sight: Sight, op: Op) -> bool:
    """The product of a convolution or of a linear layer; where that adds its bias in a second operator, not that."""
    return op.kind in PRODUCTS and type(sight.module(op)) in (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)


def _is_traced_product(sight: Sight, op: Op) -> bool:
    """A product that torch's tracer shows as an operator for which fvcore has a rule."""
    module = sight.module(op)
    is_hidden = _is_attention(sight, op) or isinstance(module, nn.RNNBase) or op.index in sight.network.graph.unread
    is_by_name = op.kind == "convolution" and isinstance(getattr(module, "padding", None), str)
    is_known = _plain(op) not in ("mv", "dot", "baddbmm", "addbmm", "_trilinear")
    return op.kind in PRODUCTS and is_known and not is_hidden and not is_by_name


def _has_formula(sight: Sight, op: Op) -> bool:
    """Whether torch's own counter has a formula for the operator; the CPU's fused attention has none."""
    return getattr(torch.ops.aten, op.name.removeprefix("aten."), None) in flop_registry


def _is_batch_norm(sight: Sight, op: Op) -> bool:
    """On running statistics: `eval` does not reach a module that is in no registered child."""
    is_running = not op.arguments.get("training", False) and "no_stats" not in op.name
    return _plain(op) in NORMS and is_running and op.module in sight.modules


def _is_instance_norm(sight: Sight, op: Op) -> bool:
    """A batch norm on the statistics of its input, which is what is left of an instance norm."""
    return _plain(op) in NORMS and not _is_batch_norm(sight, op)


def _is_adaptive_average(sight: Sight, op: Op) -> bool:
    """To one position it becomes a mean over (-1, -2) that keeps them."""
    return "adaptive_avg_pool" in op.name or (
        _plain(op) == "mean" and tuple(op.arguments.get("dim") or ()) == (-1, -2) and bool(op.arguments.get("keepdim"))
    )


def _has(name: str, op: Op) -> bool:
    return isinstance(op.arguments.get(name), Operand)


def _by_affine(with_weight: int, without: int) -> Amount:
    return lambda sight, op: _in(sight, op) * (with_weight if _has("weight", op) else without)


def _bias(sight: Sight, op: Op) -> int:
    """One for each output of a module with a bias."""
    return _out(sight, op) if getattr(sight.module(op), "bias", None) is not None else 0


def _is_affine(sight: Sight, op: Op) -> int:
    module = sight.module(op)
    has = bool(getattr(module, "affine", False) or getattr(module, "elementwise_affine", False))
    return _in(sight, op) * (4 if has else 2)


def _is_affine_by_name(sight: Sight, op: Op) -> int:
    return _in(sight, op) * (2 if getattr(sight.module(op), "affine", False) else 1)


def _transposed_as_forward(sight: Sight, op: Op) -> int:
    """Each output of a transposed convolution taken to meet the whole kernel."""
    groups = int(op.arguments.get("groups") or 1)
    return _out(sight, op) * (_read(op)[1] // groups) * prod(op.arguments["weight"].shape[2:])


def _adaptive(sight: Sight, op: Op) -> int:
    """One more than the ratio of the sizes, for each output."""
    before, after = _read(op)[2:], op.shape[2 : len(_read(op))] or (1,)
    return int((prod(before) / prod(after) + 1) * _out(sight, op))


def _softmax(sight: Sight, op: Op) -> int:
    n = _read(op)[int(op.arguments.get("dim", -1))]
    return _out(sight, op) // n * (3 * n - 1)


UPSAMPLE_COSTS = {"nearest": 1, "linear": 5, "bilinear": 11, "bicubic": 259}


def _upsample_by_mode(sight: Sight, op: Op) -> int:
    return _out(sight, op) * UPSAMPLE_COSTS.get(getattr(sight.module(op), "mode", ""), 0)


def _parameters_of_leaf(kind: str) -> Amount:
    """Torchinfo's rule: the weights or biases of a module without children, by their names and the module's output."""

    def of(sight: Sight, op: Op) -> int:
        module = sight.module(op)
        if module is None or any(module.children()) or sight.last[op.module] is not op:
            return 0
        is_conv, total = "Conv" in type(module).__name__, 0
        for size in _outputs(sight, sight.records[op.module]):
            whole, part = (prod(size[:1] + size[2:]) if is_conv else size[0]), prod(size[:2])
            total += sum((whole if name == kind else part) * p.numel()
                         for name, p in module.named_parameters() if kind in name)  # fmt: skip
        return total

    return of


def _outputs(sight: Sight, record: Module) -> list[Shape]:
    """The shape that each run of a module returns; that of the last run where the graph does not tell them apart."""
    graph = sight.network.graph
    ends: dict[int, Shape] = {}
    for op in (*graph.constants, *graph.ops):
        if op.name != INPUT and op.module == record.path:
            for made in op.inputs:
                ends.pop(made, None)
            ends[op.index] = op.shape
    last = record.result.shape if record.result else sight.last[record.path].shape
    return [*ends.values()] if len(ends) == record.n_runs else [last] * record.n_runs


def _upsample_by_argument(sight: Sight, op: Op) -> int:
    """DeepSpeed: with `size` the positions of one channel, with `scale_factor` every output."""
    scales = [v for name, v in op.arguments.items() if name.startswith("scale")]
    return _out(sight, op) if any(v is not None for v in scales) else prod(op.shape[2:])


def _everywhere(sight: Sight, op: Op) -> bool:
    return True


def _is_resize(sight: Sight, op: Op) -> bool:
    return op.kind == "resize" and "unpool" not in op.name


FUNCTIONS = ("relu", "_prelu_kernel", "elu", "gelu", "silu")
POOLS = ("max_pool2d_with_indices", "max_pool3d_with_indices", "max_pool1d_with_indices", "max_pool1d", "max_pool2d",
         "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
         "adaptive_max_pool3d")  # fmt: skip


def _is_function(*more: str) -> Where:
    return named(*FUNCTIONS, *more)


def _is_relu6(sight: Sight, op: Op) -> bool:
    """A call of relu6; the module nn.ReLU6 calls hardtanh."""
    return (
        type(sight.module(op)) is not nn.ReLU6
        and _plain(op) == "hardtanh"
        and op.arguments.get("max_val") == 6
        and not op.arguments.get("min_val")
    )


def _is_pool(sight: Sight, op: Op) -> bool:
    return _plain(op) in POOLS or _is_adaptive_average(sight, op)


def _is_softmax(sight: Sight, op: Op) -> bool:
    return type(sight.module(op)) is nn.Softmax and _plain(op) in ("_softmax", "softmax")


def _is_free_softmax(sight: Sight, op: Op) -> bool:
    """Called in a module's own forward: as a function, which some tools see, or as a method, which they do not."""
    return type(sight.module(op)) is not nn.Softmax and _plain(op) in ("_softmax", "softmax")


def _is_attention(sight: Sight, op: Op) -> bool:
    return op.kind == "attention" or op.index in sight.fused


def _is_free_product(sight: Sight, op: Op) -> bool:
    """A product of a module's own forward, outside of a linear layer and of fused attention."""
    return op.kind == "matmul" and op.index not in sight.fused and not op.params


UNKNOWN = "has a rule of its own in this tool, which our table lacks"
FUSED = "runs as one operator where no gradient is kept, which this tool counts as nothing, and as many where one is"
FAST = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)
SOFTMAX = "softmax is called through torch.nn.functional, not as a method of the tensor"

TOOLS: Mapping[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            "fvcore", "0.1.5.post20221221", "multiply-adds (which it calls flops)",
            "convolutions and matrix products, bias excluded, and norms, up-sampling and adaptive pooling",
            (
                products("convolutions and matrix products", "1 per multiply-add", _is_traced_product, _macs),
                rule("batch norms", "2 per element, 1 without scale", _is_batch_norm, _by_affine(2, 1)),
                rule("layer and group norms", "5 per element, 4 without scale",
                     named("native_layer_norm", "layer_norm", "native_group_norm", "group_norm"), _by_affine(5, 4)),
                rule("instance norms", "5 per element, 4 without scale", _is_instance_norm, _by_affine(5, 4)),
                rule("bilinear up-sampling", "4 per output", named("upsample_bilinear2d"), times(4, _out)),
                rule("nearest up-sampling", "1 per output", named("upsample_nearest2d"), _out),
                rule("adaptive average pooling", "1 per input", _is_adaptive_average, _in),
                rule("grid sampling", "4 per output", named("grid_sampler_2d", "grid_sampler_3d"), times(4, _out)),
            ),
            "scaled_dot_product_attention, activations, poolings with a window, sums and products by element",
            "constants that the forward computes from parameters alone have no cost",
            hard=dict.fromkeys(FAST, FUSED),
        ),
        Tool(
            "thop", "0.1.1.post2209072238", "multiply-adds",
            "modules of torch.nn by their class: convolutions, linear layers, norms, poolings; no functional call",
            (
                products("convolutions", "1 per multiply-add", in_module(*CONVOLUTIONS), _macs, visits=True),
                products("transposed convolutions", "each output meets the whole kernel", in_module(*TRANSPOSED),
                     _transposed_as_forward, visits=True),
                products("linear layers", "1 per multiply-add", in_module(nn.Linear), _macs, visits=True),
                rule("norms", "4 per element, 2 without scale",
                     in_module(*BATCH_NORMS, *INSTANCE_NORMS, nn.LayerNorm, nn.SyncBatchNorm), _is_affine, visits=True),
                rule("PReLU", "1 per element", in_module(nn.PReLU), _in, visits=True),
                rule("softmax", "3n - 1 for n values", in_module(nn.Softmax), _softmax, visits=True),
                rule("average pooling", "1 per output", in_module(*AVERAGES), _out, visits=True),
                rule("adaptive average pooling", "window + 1 per output", in_module(*ADAPTIVE_AVERAGES), _adaptive,
                     visits=True),
                rule("up-sampling modules", "1 (nearest), 5 (linear), 11 (bilinear), 259 (bicubic) per output",
                     in_module(*UPSAMPLES), _upsample_by_mode, visits=True),
            ),
            "every functional call, parameters used outside of their module, subclasses of the classes of torch.nn, "
            "GroupNorm, attention, ReLU and max pooling",
            hard=dict.fromkeys(RECURRENT, UNKNOWN),
        ),
        Tool(
            "ptflops", "0.7.5", "multiply-adds",
            "with its default backend (pytorch): modules of torch.nn by their class, with biases, norms, activations "
            "and poolings, and again each functional call that such a module makes; batch 1",
            (
                products("convolutions and linear layers", "1 per multiply-add",
                     in_module(*CONVOLUTIONS, *TRANSPOSED, nn.Linear), _macs, visits=True),
                rule("biases", "1 per output", _is_layer, _bias, visits=True),
                rule("norms", "2 per element, 1 without scale and for LayerNorm",
                     in_module(*BATCH_NORMS, *INSTANCE_NORMS, nn.GroupNorm, nn.LayerNorm), _is_affine_by_name,
                     visits=True),
                rule("activation modules", "1 per element", in_module(*ACTIVATIONS), _out, visits=True),
                rule("pooling modules", "1 per input", in_module(*POOLINGS), _in, visits=True),
                rule("up-sampling modules", "1 per output", in_module(nn.Upsample), _out, visits=True),
                rule("functional activations, those of modules too", "1 per element", _is_function(), _in),
                rule("functional relu6", "1 per element", _is_relu6, _in),
                rule("functional poolings, those of modules too", "1 per input", _is_pool, _in),
                rule("softmax modules", "1 per element", _is_softmax, _in),
                rule("functional up-sampling, those of modules too", "1 per output", _is_resize, _out),
            ),
            "scaled_dot_product_attention, products written @, functional convolutions and linear layers, sigmoid, "
            "sums and products written + and *",
            "activations and poolings are called through torch.nn.functional, not as methods of a tensor; sums and "
            "products are written with operators",
            hard=dict.fromkeys((*RECURRENT, nn.MultiheadAttention, "timm.layers.attention.Attention",
                                "timm.models.vision_transformer.Attention"), UNKNOWN),
            doubts={
                "products are called as torch.matmul, mm or bmm, not with @":
                    lambda sight, op: macs_of(op) if _is_free_product(sight, op) else 0,
                SOFTMAX: lambda sight, op: _in(sight, op) if _is_free_softmax(sight, op) else 0,
            },
            per_sample=True,
        ),
        Tool(
            "torchinfo", "1.8.0", "multiply-adds",
            "modules without children, from the number of their parameters: those of a convolution times the positions "
            "of its output, all others times the batch",
            (
                products("weights of modules", "positions of the output (convolutions) or batch for each", _everywhere,
                         _parameters_of_leaf("weight")),
                rule("biases of modules", "positions of the output (convolutions) or batch for each", _everywhere,
                     _parameters_of_leaf("bias")),
            ),
            "functional calls, products of data with data, parameters of modules with children, positions of linear "
            "layers and norms",
        ),
        Tool(
            "deepspeed", "0.19.8", "FLOPs (its MACs are those of products alone)",
            "2 per multiply-add of convolutions, matrix products and attention, biases of convolutions, and norms, "
            "activations, poolings, softmax and up-sampling",
            (
                products("convolutions, matrix products, attention", "2 per multiply-add",
                     lambda sight, op: op.kind in (*PRODUCTS, "attention"), times(2, _macs)),
                rule("biases of convolutions", "1 per output",
                     lambda sight, op: op.kind == "convolution" and _has("bias", op), _out),
                rule("batch norms", "2 per element, 1 without scale", _is_batch_norm, _by_affine(2, 1)),
                rule("layer, group and instance norms", "5 per element, 4 without scale",
                     lambda sight, op: op.kind == "norm" and not _is_batch_norm(sight, op), _by_affine(5, 4)),
                rule("activations", "1 per element", _is_function("leaky_relu"), _in),
                rule("relu6", "1 per element", _is_relu6, _in),
                rule("poolings", "1 per input", _is_pool, _in),
                rule("softmax modules", "1 per element", _is_softmax, _in),
                rule("up-sampling", "1 per output with scale_factor; 1 per position of one channel with size",
                     _is_resize, _upsample_by_argument),
            ),
            "sigmoid and tanh, sums and products written + and *, biases of linear layers",
            "activations and poolings are called through torch.nn.functional; sums and products are written with "
            "operators; no einsum, whose FLOPs the tool reads from a rounded text; the model runs on real tensors",
            hard={**dict.fromkeys(RECURRENT, UNKNOWN), **dict.fromkeys(FAST, FUSED)},
            doubts={SOFTMAX: lambda sight, op: _in(sight, op) if _is_free_softmax(sight, op) else 0},
            per_mac=2,
        ),
        Tool(
            "flopcounter", "torch 2.13", "FLOPs",
            "2 per multiply-add of convolutions, matrix products and attention; everything else nothing",
            (
                products("convolutions, matrix products, attention", "2 per multiply-add", _has_formula,
                         times(2, _macs)),
            ),
            "norms, activations, poolings, up-sampling, products of a matrix with a vector",
            "the model runs on the device of the audit, meta unless another is asked for: on the CPU fused attention "
            "counts as nothing",
            per_mac=2,
        ),
    )
}  # fmt: skip
