"""Our multiply-adds and parameters beside those of other instruments, and the causes of each difference.

The causes are those of `counted_like`: the instrument's own rules, applied to the executed operators.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from io import StringIO
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from resattn.extras import require
from resattn.graph.capture import without_fast_path
from resattn.graph.graph import Graph
from resattn.graph.inputs import Inputs
from resattn.graph.walk import leaves_of
from resattn.instruments.counters import TOOLS, Sight, counted_like
from resattn.measures import cost
from resattn.measures.captured import Captured
from resattn.networks.spec import NetworkSpec
from resattn.rules.rule import macs_of
from resattn.targets import resolved


@dataclass(frozen=True)
class Check:
    """One number of one tool beside ours. `unexplained`: the part of the difference without a known cause.

    `error`: why the tool gave no number; `reported` and the differences are then None.
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
    """The numbers of every instrument for one network, beside ours; the model runs on values where a tool needs them.

    `args`, `kwargs`: as for `audit`. An instrument that fails gives a row with its error.
    Raises: TargetError, SpecError, CaptureError, MissingError.
    """
    require("crosscheck", "crosscheck")
    with resolved(target, args, kwargs, settings=settings) as found:
        model, name = _evaluating(found.make("cpu")), found.name
        network = Captured.of(model, *found.inputs.args, name=name, device="cpu", **found.inputs.kwargs)
        call = _Call(model, found.inputs)
        _evaluating(call)
        learned = [p for p in model.parameters() if p.requires_grad]
        for p in learned:
            p.requires_grad = False  # torch's counter refuses a parameter that is passed to a module
        try:
            with without_fast_path(), torch.no_grad():
                fvcore, torchinfo, torchs = (_macs(call, network, *row) for row in INSTRUMENTS)
                return [fvcore, torchinfo, _params(call, network), torchs]
        finally:
            for p in learned:
                p.requires_grad = True


def _evaluating(model: nn.Module) -> nn.Module:
    """The model in evaluation mode; an exported one refuses `eval`."""
    for module in model.modules():
        module.training = False
    return model


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


def _macs(call: _Call, network: Captured, name: str, rules: str, package: str, measure: Measure) -> Check:
    counted = counted_like(network, rules)
    quantity = "macs" if TOOLS[rules].per_mac == 1 else "flops"
    ours = TOOLS[rules].per_mac * counted.macs
    row = Check(network.name, name, _version(package), quantity, counted.definition, ours)

    def measured() -> Check:
        reported, uncounted = measure(call)
        causes = {**counted.causes, **(_in_one_kernel(network) if ONE_KERNEL in uncounted else {})}
        return replace(row, reported=reported, causes=causes, uncounted=uncounted)

    return _tried(row, measured)


def _params(call: _Call, network: Captured) -> Check:
    graph = network.graph
    definition = "parameters of all modules, executed or not"
    row = Check(network.name, "torchinfo", _version("torchinfo"), "params", definition, network.params())

    def measured() -> Check:
        reported, causes = _torchinfo_params(call, graph)
        return replace(row, reported=reported, causes={cause: n for cause, n in causes.items() if n})

    return _tried(row, measured)


def _tried(row: Check, measured: Callable[[], Check]) -> Check:
    """The measured row, or the row with the error of the instrument."""
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            return measured()
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        return replace(row, error=": ".join([type(error).__name__, *lines[:1]]))


def _version(package: str) -> str:
    return torch.__version__ if package == "torch" else version(package)


def _fvcore(call: _Call) -> tuple[int, tuple[str, ...]]:
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(call, call.tensors)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    reported = int(analysis.total())
    return reported, tuple(sorted(name.removeprefix("aten::") for name in analysis.unsupported_ops()))


def _torchinfo(call: _Call) -> tuple[int, tuple[str, ...]]:
    import torchinfo

    result = torchinfo.summary(call, input_data=list(call.tensors), verbose=0, depth=10**6)
    return int(result.total_mult_adds), ()


ONE_KERNEL = "mkldnn_rnn_layer"  # of an LSTM on the CPU, where torch's conditions for it hold


class _Kernels(TorchDispatchMode):
    """Whether operators ran that hold products and for which torch has no formula."""

    found: tuple[str, ...] = ()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if ONE_KERNEL in str(func):
            self.found = (ONE_KERNEL,)
        return func(*args, **(kwargs or {}))


def _flop_counter(call: _Call) -> tuple[int, tuple[str, ...]]:
    with FlopCounterMode(display=False) as counter, _Kernels() as kernels:
        call(*call.tensors)
    return int(counter.get_total_flops()), kernels.found


def _in_one_kernel(network: Captured) -> dict[str, int]:
    """What torch's counter leaves out with the LSTMs that run as one kernel: those without a projection."""
    sight = Sight(network)
    plain = {path for path, m in sight.modules.items() if isinstance(m, nn.LSTM) and not m.proj_size}
    ops = (*network.graph.ops, *network.graph.constants)
    return {"LSTM in one kernel, not counted": -2 * sum(macs_of(op) for op in ops if op.module in plain)}


def _torchinfo_params(call: _Call, graph: Graph) -> tuple[int, dict[str, int]]:
    """What torchinfo reports, and why it is not ours."""
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
    return int(result.total_params), {
        "parameters that no execution reads": cost.n_params(graph, set(graph.params) - read),
        "parameters of several modules, counted for each": sum(each.values()) - sum(once.values()),
        "parameters of a module that several others hold, counted again": again,
        "parameters outside of modules, not seen": sum(once.values()) - sum(graph.params.values()),
    }


Measure = Callable[[_Call], tuple[int, tuple[str, ...]]]
# A tool by its name here, the table of its rules, its package, and its number with the operators that it leaves out.
INSTRUMENTS: tuple[tuple[str, str, str, Measure], ...] = (
    ("fvcore", "fvcore", "fvcore", _fvcore),
    ("torchinfo", "torchinfo", "torchinfo", _torchinfo),
    ("torch FlopCounterMode", "flopcounter", "torch", _flop_counter),
)
