"""Our multiply-adds and parameters beside those of other instruments, each difference taken apart into its causes."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from math import prod
from typing import Any

import torch
from torch import nn

from resattn.graph.graph import Graph, Op, Operand
from resattn.measures import cost
from resattn.measures.audit import TargetError, model_of
from resattn.measures.captured import capture
from resattn.networks import catalog
from resattn.networks.network import build
from resattn.networks.spec import NetworkSpec, override


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
    target: str | NetworkSpec | nn.Module,
    *,
    input_shape: Sequence[int] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> list[Check]:
    """Every instrument's numbers for one network; the model runs for real where a tool cannot do without.

    Raises: TargetError, SpecError, CaptureError.
    """
    model, name, shape = _model(target, input_shape, settings)
    graph = capture(model, shape)
    checks = [_fvcore(name, model, graph, shape), _torchinfo(name, model, graph, shape)]
    return [*checks, _torchinfo_params(name, model, graph), _flop_counter(name, model, graph, shape)]


def _model(
    target: str | NetworkSpec | nn.Module, input_shape: Sequence[int] | None, settings: Mapping[str, Any] | None
) -> tuple[nn.Module, str, tuple[int, ...]]:
    if isinstance(target, str) and catalog.is_name(target):
        target = override(catalog.named(target), dict(settings or {}))
    if isinstance(target, NetworkSpec):
        return build(target).eval(), target.name, (1, *(input_shape or target.input_shape))
    if input_shape is None:
        raise TargetError(f"{target} needs an input shape: channels, height, width")
    model = target if isinstance(target, nn.Module) else model_of(target, "cpu")
    return model.eval(), target if isinstance(target, str) else type(target).__name__, (1, *input_shape)


def _ours(graph: Graph) -> int:
    return sum(cost.op_macs(graph))


def _kinds(graph: Graph, *kinds: str) -> list[Op]:
    return [op for op in graph.ops if op.kind in kinds]


def _fvcore(name: str, model: nn.Module, graph: Graph, shape: tuple[int, ...]) -> Check:
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(model, torch.zeros(shape))
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


def _torchinfo(name: str, model: nn.Module, graph: Graph, shape: tuple[int, ...]) -> Check:
    import torchinfo

    result = torchinfo.summary(model, input_data=torch.zeros(shape), verbose=0)
    causes = Counter(
        {
            "parameters of norms, counted once": sum(_numel(graph, op.params) for op in _kinds(graph, "norm")),
            "biases": sum(_bias_macs(graph, op) for op in _kinds(graph, "convolution", "matmul")),
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


def _flop_counter(name: str, model: nn.Module, graph: Graph, shape: tuple[int, ...]) -> Check:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(shape))
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
