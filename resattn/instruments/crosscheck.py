"""Our multiply-adds and parameters beside those of other instruments, each difference taken apart into its causes.

A cause is the rule of the instrument, computed from operators and modules that the forward executed.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from io import StringIO
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from resattn.extras import require
from resattn.graph.capture import without_fast_path
from resattn.graph.graph import Graph, Op
from resattn.graph.inputs import Inputs
from resattn.graph.walk import leaves_of, modules_of
from resattn.measures import cost
from resattn.measures.captured import capture
from resattn.networks.spec import NetworkSpec
from resattn.rules.rule import macs_of
from resattn.targets import resolved


@dataclass(frozen=True)
class Check:
    """One number of one tool beside ours. `unexplained` is what is left of the difference after all causes.

    `error`: why the tool gave no number; `reported` is then None, and so are the differences.
    """

    target: str
    tool: str
    version: str
    quantity: str
    definition: str
    ours: int
    reported: int | None = None
    causes: Mapping[str, int] = field(default_factory=dict)
    uncounted: tuple[str, ...] = ()
    error: str = ""

    @property
    def difference(self) -> int | None:
        return None if self.reported is None else self.reported - self.ours

    @property
    def unexplained(self) -> int | None:
        return None if self.difference is None else self.difference - sum(self.causes.values())

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "difference": self.difference, "unexplained": self.unexplained}


def crosscheck(
    target: str | NetworkSpec | nn.Module, *args: Any, settings: Mapping[str, Any] | None = None, **kwargs: Any
) -> list[Check]:
    """Every instrument's numbers for one network; the model runs on values where a tool needs them.

    `args`, `kwargs`: as for `audit`. An instrument that fails is a row with its error.
    Raises: TargetError, SpecError, CaptureError, MissingError.
    """
    require("crosscheck", "crosscheck")
    with resolved(target, args, kwargs, settings=settings) as found:
        model, name = found.make("cpu").eval(), found.name
        graph = capture(model, *found.inputs.args, device="cpu", **found.inputs.kwargs)
        call = _Call(model, found.inputs).eval()
        learned = [p for p in model.parameters() if p.requires_grad]
        for p in learned:
            p.requires_grad = False  # torch's counter refuses a parameter that is passed to a module
        try:
            with without_fast_path(), torch.no_grad():
                return [_measured(tool, name, call, graph) for tool in TOOLS]
        finally:
            for p in learned:
                p.requires_grad = True


class _Call(nn.Module):
    """The model as a function of tensors in their order, which is what every instrument can call."""

    def __init__(self, model: nn.Module, inputs: Inputs) -> None:
        super().__init__()
        self.model = model
        floating = (p.dtype for p in model.parameters() if p.is_floating_point())
        self.inputs, self.dtype = inputs, next(floating, torch.get_default_dtype())
        self.tensors = tuple(inputs.on("cpu", self.dtype)[2])

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        args, kwargs = self.inputs.filled(tensors)
        return tuple(leaves_of(self.model(*args, **kwargs)))


def _measured(tool: _Tool, name: str, call: _Call, graph: Graph) -> Check:
    ours = cost.n_params(graph, cost.read_params(graph)) if tool.quantity == "params" else cost.all_macs(graph)
    row = Check(
        target=name, tool=tool.name, version=tool.version(), quantity=tool.quantity, definition=tool.definition,
        ours=2 * ours if tool.quantity == "flops" else ours,
    )  # fmt: skip
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            reported, causes, uncounted = tool.measure(call, graph)
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        return replace(row, error=": ".join([type(error).__name__, *lines[:1]]))
    named = {cause: n for cause, n in causes.items() if n}
    return replace(row, reported=reported, causes=named, uncounted=tuple(sorted(uncounted)))


def _ops(graph: Graph) -> tuple[Op, ...]:
    return *graph.ops, *graph.constants


RECURRENT = (nn.RNNBase,)


def _in_recurrent(model: nn.Module, graph: Graph) -> list[Op]:
    """The products of recurrent modules, which an instrument sees as one operator."""
    paths = {path: module for path, module in modules_of(model) if isinstance(module, RECURRENT)}
    return [op for op in _ops(graph) if op.module in paths]


# -- fvcore


def _fvcore(call: _Call, graph: Graph) -> tuple[int, Counter[str], set[str]]:
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(call, call.tensors)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    reported = int(analysis.total())
    uncounted = {name.removeprefix("aten::") for name in analysis.unsupported_ops()}
    # fvcore's own rules for what is not a convolution or a matrix product (jit_handles.py), on our graph.
    causes: Counter[str] = Counter()
    for op in _ops(graph):
        name = op.name.removeprefix("aten.")
        if op.kind == "norm" and (rule := _fvcore_norm(op)):
            causes[f"{rule[0]}, {rule[1]} per element"] += rule[1] * prod(op.arguments["input"].shape)
        elif name == "upsample_bilinear2d":
            causes["bilinear up-sampling, 4 per output"] += 4 * prod(op.shape)
        elif name == "upsample_nearest2d":
            causes["nearest up-sampling, 1 per output"] += prod(op.shape)
        elif name.startswith("grid_sampler"):
            causes["grid sampling, 4 per output"] += 4 * prod(op.shape)
    # Ours is a mean where the result is one position.
    causes["adaptive pooling, 1 per input"] += int(analysis.by_operator()["adaptive_avg_pool2d"])
    causes["products whose result nothing reads, not traced"] -= sum(
        macs_of(op) for op in graph.constants if op.index in graph.unread
    )
    causes.update(_unseen(call.model, graph, uncounted))
    return reported, causes, uncounted


def _fvcore_norm(op: Op) -> tuple[str, int] | None:
    """Name and rule of fvcore for a norm."""
    name, is_affine = op.name.removeprefix("aten."), op.arguments.get("weight") is not None
    if "batch_norm" in name:
        if op.arguments.get("training"):  # the statistics of the batch, or of the image
            return "norm by its own statistics", 5 if is_affine else 4
        return "batch norm", 2 if is_affine else 1
    if name in ("native_layer_norm", "native_group_norm"):
        return name.removeprefix("native_").replace("_", " "), 5 if is_affine else 4
    return None


def _unseen(model: nn.Module, graph: Graph, uncounted: set[str]) -> Counter[str]:
    """The products of operators that the instrument lists as not counted."""
    causes: Counter[str] = Counter()
    recurrent = _in_recurrent(model, graph)
    inside = {id(op) for op in recurrent}
    modules = dict(modules_of(model))
    if uncounted & {"lstm", "gru", "rnn_tanh", "rnn_relu", "mkldnn_rnn_layer"}:
        causes["recurrent layers, not counted"] -= sum(map(macs_of, recurrent))
    for op in _ops(graph):
        name, is_same = op.name.removeprefix("aten."), isinstance(getattr(modules.get(op.module), "padding", None), str)
        if id(op) in inside:
            continue
        if op.kind == "attention" and any("scaled_dot_product" in n for n in uncounted):
            causes["scaled dot product attention, not counted"] -= macs_of(op)
        elif op.kind == "convolution" and "_convolution_mode" in uncounted and is_same:
            causes["convolution with padding by name, not counted"] -= macs_of(op)
        elif name in uncounted or NAMES_IN_TRACES.get(name, name) in uncounted:
            causes[f"{name.strip('_')}, not counted"] -= macs_of(op)
    return causes


# What torch's tracer calls an operator of ours.
NAMES_IN_TRACES = {"_trilinear": "bilinear"}


# -- torchinfo


def _torchinfo(call: _Call, graph: Graph) -> tuple[int, Counter[str], set[str]]:
    """Each module's number by torchinfo's rule (layer_info.py): its weights by the size of its output."""
    import torchinfo

    result = torchinfo.summary(call, input_data=list(call.tensors), verbose=0, depth=10**6)
    paths = {id(module): path for path, module in modules_of(call.model)}
    own: Counter[str] = Counter()
    for op in _ops(graph):
        own[op.module] += macs_of(op)
    causes: Counter[str] = Counter()
    for layer in result.summary_list:
        if not layer.is_leaf_layer:
            continue
        path = paths.get(id(layer.module))
        for cause, n in _torchinfo_rule(layer.module, layer.class_name, layer.output_size):
            causes[cause] += n
        if path is not None and path in own and _is_weighted(layer.module):
            # All calls of a module at once: what it executed stands against the sum of its rows.
            causes[_by_size(layer.class_name)] -= own.pop(path)
    for op in _ops(graph):
        if own.get(op.module) and macs_of(op):
            causes[f"{op.name.removeprefix('aten.')} outside of modules with weights, not seen"] -= macs_of(op)
    return int(result.total_mult_adds), causes, set()


def _torchinfo_rule(module: nn.Module, kind: str, size: Any) -> Iterable[tuple[str, int]]:
    for name, param in module.named_parameters():
        if name in ("weight", "bias"):
            times = prod([*size[:1], *size[2:]]) if "Conv" in kind else size[0]
        elif "weight" in name or "bias" in name:
            times = prod(size[:2])
        else:
            continue
        is_bias = "bias" in name and _is_weighted(module)
        yield ("biases" if is_bias else _by_size(kind), times * param.numel())


def _by_size(kind: str) -> str:
    return f"{kind}: weights by the size of its output, not by its products"


def _is_weighted(module: nn.Module) -> bool:
    return any(p.dim() > 1 for p in module.parameters(recurse=False))


def _torchinfo_params(call: _Call, graph: Graph) -> tuple[int, Counter[str], set[str]]:
    import torchinfo

    result = torchinfo.summary(call.model, verbose=0, depth=10**6)
    read = cost.read_params(graph)
    modules = {id(layer.module): layer.module for layer in result.summary_list}
    once = {id(p): p.numel() for m in modules.values() for p in m.parameters(recurse=False)}
    each = {k: sum(p.numel() for p in m.parameters(recurse=False)) for k, m in modules.items()}
    again = 0
    for layer in result.summary_list:
        if not layer.is_recursive:
            counted = layer.num_params if layer.is_leaf_layer else layer.leftover_params()
            again += max(counted, 0) - each[id(layer.module)]
    return (
        int(result.total_params),
        Counter(
            {
                "parameters that no execution reads": cost.n_params(graph, set(graph.params) - read),
                "parameters of several modules, counted for each": sum(each.values()) - sum(once.values()),
                "parameters of a module that several others hold, counted again": again,
                "parameters outside of modules, not seen": sum(once.values()) - sum(graph.params.values()),
            }
        ),
        set(),
    )


# -- torch


class _Seen(TorchDispatchMode):
    """The names of the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.packets: set[Any] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.packets.add(func._overloadpacket)
        return func(*args, **(kwargs or {}))


def _flop_counter(call: _Call, graph: Graph) -> tuple[int, Counter[str], set[str]]:
    from torch.utils.flop_counter import FlopCounterMode, flop_registry

    with FlopCounterMode(display=False) as counter, _Seen() as seen:
        call(*call.tensors)
    uncounted = {packet.__name__ for packet in seen.packets if packet not in flop_registry}
    causes = Counter({cause: 2 * n for cause, n in _unseen(call.model, graph, uncounted).items()})
    return int(counter.get_total_flops()), causes, set()


Measure = Callable[[_Call, Graph], tuple[int, Counter[str], set[str]]]


@dataclass(frozen=True)
class _Tool:
    name: str
    package: str
    quantity: str
    definition: str
    measure: Measure

    def version(self) -> str:
        return torch.__version__ if self.package == "torch" else version(self.package)


TOOLS = (
    _Tool(
        "fvcore", "fvcore", "macs", "multiply-adds, called flops; batch norm and up-sampling included", _fvcore
    ),
    _Tool(
        "torchinfo", "torchinfo", "macs", "multiply-adds of modules with parameters, from the size of the weight",
        _torchinfo,
    ),
    _Tool("torchinfo", "torchinfo", "params", "parameters of all modules, executed or not", _torchinfo_params),
    _Tool(
        "torch FlopCounterMode", "torch", "flops",
        "2 per multiply-add of convolutions, matrix products and attention; all else nothing", _flop_counter,
    ),
)  # fmt: skip
