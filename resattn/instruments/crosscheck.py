"""Our multiply-adds and parameters beside those of other instruments, each difference taken apart into its causes."""

from __future__ import annotations

import inspect
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from math import prod
from typing import Any

import torch
from torch import nn

from resattn.extras import require
from resattn.graph.graph import Graph, Op, Operand
from resattn.graph.inputs import Inputs
from resattn.measures import cost
from resattn.measures.captured import capture
from resattn.networks.spec import NetworkSpec
from resattn.targets import TargetError, resolved


@dataclass(frozen=True)
class Check:
    """One number of one tool beside ours. `unexplained` is what is left of the difference after all causes."""

    target: str
    tool: str
    version: str
    quantity: str
    definition: str
    reported: int
    ours: int
    causes: Mapping[str, int]
    uncounted: tuple[str, ...] = ()

    @property
    def difference(self) -> int:
        return self.reported - self.ours

    @property
    def unexplained(self) -> int:
        return self.difference - sum(self.causes.values())

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "difference": self.difference, "unexplained": self.unexplained}


def crosscheck(
    target: str | NetworkSpec | nn.Module, *args: Any, settings: Mapping[str, Any] | None = None, **kwargs: Any
) -> list[Check]:
    """Every instrument's numbers for one network; the model runs on values where a tool needs them.

    `args`, `kwargs`: as for `audit`.
    Raises: TargetError, SpecError, CaptureError, MissingError.
    """
    require("crosscheck", "crosscheck")
    with resolved(target, args, kwargs, settings=settings) as found:
        model, name = found.make("cpu").eval(), found.name
        graph = capture(model, *found.inputs.args, **found.inputs.kwargs)
        call = _values(model, found.inputs)
        checks = [_fvcore(name, model, graph, call), _torchinfo(name, model, graph, call)]
        return [*checks, _torchinfo_params(name, model, graph), _flop_counter(name, model, graph, call)]


def _values(model: nn.Module, inputs: Inputs) -> tuple[Any, ...]:
    """The arguments on the CPU in the order of the forward's signature: fvcore takes no keywords."""
    floating = (p.dtype for p in model.parameters() if p.is_floating_point())
    args, kwargs, _ = inputs.on("cpu", next(floating, torch.get_default_dtype()))
    if not kwargs:
        return args
    bound = inspect.signature(model.forward).bind(*args, **kwargs)
    bound.apply_defaults()
    if bound.kwargs:
        raise TargetError(f"crosscheck cannot pass arguments by keyword alone: {', '.join(bound.kwargs)}")
    return bound.args


def _ours(graph: Graph) -> int:
    return cost.all_macs(graph)


def _kinds(graph: Graph, *kinds: str) -> list[Op]:
    return [op for op in graph.ops if op.kind in kinds]


def _fvcore(name: str, model: nn.Module, graph: Graph, call: tuple[Any, ...]) -> Check:
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(model, call)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        reported = int(analysis.total())
    # fvcore's own rules for what is not a convolution or a matrix product (jit_handles.py), on our graph.
    causes = Counter(
        {
            "batch norm, 2 per element": sum(2 * prod(op.shape) for op in _kinds(graph, "norm") if op.params),
            "bilinear up-sampling, 4 per output": sum(
                4 * prod(op.shape) for op in _kinds(graph, "resize") if "bilinear" in op.name
            ),
            "nearest up-sampling, 1 per output": sum(
                prod(op.shape) for op in _kinds(graph, "resize") if "nearest" in op.name
            ),
            "adaptive pooling, 1 per input": analysis.by_operator()["adaptive_avg_pool2d"],
        }
    )
    return Check(
        target=name, tool="fvcore", version=version("fvcore"), quantity="macs",
        definition="multiply-adds, called flops; batch norm and up-sampling included",
        reported=reported, ours=_ours(graph), causes=dict(+causes),
        uncounted=tuple(sorted(op.removeprefix("aten::") for op in analysis.unsupported_ops())),
    )  # fmt: skip


def _torchinfo(name: str, model: nn.Module, graph: Graph, call: tuple[Any, ...]) -> Check:
    import torchinfo

    result = torchinfo.summary(model, input_data=list(call), verbose=0)
    batch = graph.input_shapes[0][0]
    causes = Counter(
        {
            "parameters of norms, counted once": batch * sum(_numel(graph, op.params) for op in _kinds(graph, "norm")),
            "biases": batch * sum(_bias_macs(graph, op) for op in _kinds(graph, "convolution", "matmul")),
        }
    )
    return Check(
        target=name, tool="torchinfo", version=version("torchinfo"), quantity="macs",
        definition="multiply-adds of modules with parameters, from the size of the weight",
        reported=int(result.total_mult_adds), ours=_ours(graph), causes=dict(+causes),
    )  # fmt: skip


def _torchinfo_params(name: str, model: nn.Module, graph: Graph) -> Check:
    import torchinfo

    result = torchinfo.summary(model, verbose=0)
    read = cost.read_params(graph)
    causes = Counter({"parameters that no execution reads": cost.n_params(graph, set(graph.params) - read)})
    return Check(
        target=name, tool="torchinfo", version=version("torchinfo"), quantity="params",
        definition="parameters of all modules, executed or not",
        reported=int(result.total_params), ours=cost.n_params(graph, read), causes=dict(+causes),
    )  # fmt: skip


def _flop_counter(name: str, model: nn.Module, graph: Graph, call: tuple[Any, ...]) -> Check:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*call)
    return Check(
        target=name, tool="torch FlopCounterMode", version=torch.__version__, quantity="flops",
        definition="2 per multiply-add of convolutions, matrix products and attention; all else nothing",
        reported=int(counter.get_total_flops()), ours=2 * _ours(graph), causes={},
    )  # fmt: skip


def _numel(graph: Graph, params: Sequence[str]) -> int:
    return sum(graph.params[p] for p in params)


def _bias_macs(graph: Graph, op: Op) -> int:
    bias = op.arguments.get("bias") or (op.arguments.get("self") if op.name == "aten.addmm" else None)
    if not isinstance(bias, Operand):
        return 0
    return _numel(graph, bias.params) * (prod(op.shape[2:]) if len(op.shape) > 2 else 1)
