"""Independent answers: the support of a gradient, enumerated paths. Nothing here reads an analysis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count, islice
from typing import Any

import networkx as nx
import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import assume
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from resattn.graph.graph import INPUT, Graph, Op, Operand

# Where an exact weight is zero (a resize that falls on a pixel) rounding leaves about 1e-16 of the largest.
NOISE = 1e-13

IDENTITY = {
    F.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.mish, F.softplus, F.hardswish, F.hardsigmoid,
    F.sigmoid, F.tanh, torch.relu, torch.relu_, torch.sigmoid, torch.sigmoid_, torch.tanh,
    Tensor.relu, Tensor.relu_, Tensor.sigmoid, Tensor.sigmoid_, Tensor.tanh, F.batch_norm, F.dropout,
}  # fmt: skip
AVERAGES = {F.max_pool1d: F.avg_pool1d, F.max_pool2d: F.avg_pool2d, F.max_pool3d: F.avg_pool3d}
# boolean_dispatch hides the function that a module calls.
AVERAGES |= {torch.max_pool1d: F.avg_pool1d, torch.max_pool2d: F.avg_pool2d, torch.max_pool3d: F.avg_pool3d}


class Linearised(TorchFunctionMode):
    """Averages for maxima, identity for activations, x + mean for norms that read all positions."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in IDENTITY:
            return args[0] * 1.0
        if func in AVERAGES:
            return _average(func, *args, **kwargs)
        if func is F.adaptive_max_pool2d:
            return F.adaptive_avg_pool2d(args[0], args[1])
        if func is F.instance_norm:
            return args[0] + args[0].mean((2, 3), keepdim=True)
        if func is F.group_norm:
            return args[0] + args[0].mean()
        if func is F.layer_norm:
            return args[0] + args[0].mean(tuple(range(-len(args[1]), 0)), keepdim=True)
        if func in (torch.amax, Tensor.amax):
            return torch.mean(*args, **kwargs)
        if func in (torch.max, Tensor.max) and len(args) == 2:
            return args[0] + args[1]
        return func(*args, **kwargs)


def _average(
    func: Any, x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Tensor:  # fmt: skip
    if dilation in (1, (1, 1)):
        return AVERAGES[func](x, kernel_size, stride, padding, ceil_mode)
    kernel = (kernel_size,) * 2 if isinstance(kernel_size, int) else kernel_size
    ones = torch.ones((x.shape[1], 1, *kernel), dtype=x.dtype)
    return F.conv2d(x, ones, None, stride or kernel_size, padding, dilation, x.shape[1])


def positive(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in float64 and evaluation mode with positive random parameters and no bias."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    with torch.no_grad():
        for name, param in model.named_parameters():
            drawn = 0.5 + torch.rand(param.shape, generator=generator, dtype=torch.float64)
            param.copy_(torch.zeros_like(param) if name.endswith("bias") else drawn)
    return model


def gradient_support(
    model: nn.Module, *shapes: tuple[int, ...], axis: int, dims: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """First and last input position along one image axis with a non-zero gradient, for each output position.

    `dims`: the dimensions of the output whose positions are told apart (the image axis, unless given); all others
    are summed over. Where nothing is seen, 0 and -1.
    """
    generator = torch.Generator().manual_seed(1)
    inputs = [1.0 + torch.rand(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    inputs[0].requires_grad_()
    with Linearised():
        output = model(*inputs)
    dims = [2 + axis] if dims is None else list(dims)
    gone = tuple(d for d in range(output.dim()) if d not in dims)
    sums = output.sum(gone) if gone else output
    other = tuple(d for d in range(inputs[0].dim()) if d != 2 + axis)
    lo, hi = np.zeros(sums.shape, dtype=np.int64), np.full(sums.shape, -1, dtype=np.int64)
    for at in np.ndindex(*sums.shape):
        if sums.grad_fn is None:
            continue
        (gradient,) = torch.autograd.grad(sums[at], inputs[0], retain_graph=True)
        seen = gradient.abs().amax(other)
        index = torch.nonzero(seen > NOISE * float(seen.max())).flatten().tolist()
        if index:
            lo[at], hi[at] = index[0], index[-1]
    return lo, hi


def told(extent: Any) -> tuple[np.ndarray, np.ndarray]:
    """What the analysis says, in the same form."""
    sees = extent.hi >= extent.lo
    return np.where(sees, extent.lo, 0), np.where(sees, extent.hi, -1)


def enumerated_paths(
    n_nodes: int,
    edges: Sequence[tuple[int, int]],
    sources: Sequence[int],
    sinks: Sequence[int],
    is_layer: Callable[[int], bool],
) -> dict[int, int]:
    """Paths by their number of layers, each one walked: a multigraph by networkx. Edges may repeat."""
    graph = nx.MultiDiGraph()
    graph.add_nodes_from(range(n_nodes))
    graph.add_edges_from(edges)
    lengths: Counter[int] = Counter()
    for source in sources:
        for sink in sinks:
            if source == sink:
                lengths[int(is_layer(source))] += 1
                continue
            for path in nx.all_simple_edge_paths(graph, source, sink):
                lengths[sum(map(is_layer, [source, *(e[1] for e in path)]))] += 1
    return dict(sorted(lengths.items()))


def walked_paths(graph: Graph, is_layer: list[bool]) -> dict[int, int]:
    """The same for a captured graph."""
    edges = [(i, op.index) for op in graph.ops for i in op.inputs]
    sources = [op.index for op in graph.ops if op.name == INPUT]
    return enumerated_paths(len(graph.ops), edges, sources, list(graph.outputs), is_layer.__getitem__)


def single_paths(graph: Graph, target: int, most: int = 200) -> Iterator[Graph]:
    """The graph with the edges of one path from the first input to the target, for each path.

    Raises: hypothesis' UnsatisfiedAssumption where there are more than so many.
    """

    def walk(index: int, kept: dict[int, int]) -> Iterator[dict[int, int]]:
        op = graph.ops[index]
        if index == 0:
            yield kept
        for k, operand in enumerate(op.operands):
            if operand.producer is not None:
                yield from walk(operand.producer, kept | {index: k})

    paths = list(islice(walk(target, {}), most + 1))
    if len(paths) > most:
        assume(False)
    for path in paths:
        yield replace(graph, ops=tuple(_reading(op, path.get(op.index)) for op in graph.ops))


def _reading(op: Op, wanted: int | None) -> Op:
    """The operator with data from one of its tensor arguments alone, or from none."""
    places = count()

    def cut(value: Any) -> Any:
        if isinstance(value, Operand):
            return value if next(places) == wanted else Operand(value.shape, values=value.values)
        return tuple(map(cut, value)) if isinstance(value, tuple) else value

    return Op(op.index, op.name, op.module, {k: cut(v) for k, v in op.arguments.items()}, op.shapes, op.rule)


def leaves(module: nn.Module) -> Iterator[nn.Module]:
    return (m for m in module.modules() if not list(m.children()))


# -- receptive fields of the released prototxts, along one axis


Reach = tuple[np.ndarray, np.ndarray, np.ndarray]  # of each position: first and last input pixel, and touches a border


def sides_of_release(modules: Sequence[int], *, masks: bool, length: int = 7168) -> Iterator[set[int]]:
    """What positions that see no border see at the end of each stage, in input pixels, from index arithmetic alone.

    Source: fwang91, model/Attention-56-deploy.prototxt and Attention-92-deploy.prototxt: kernels and strides; pooling
    3x3 of stride 2 without padding, rounded up; interpolation with aligned corners.
    """
    pixels = np.arange(length)
    x = _window((pixels, pixels, np.zeros(length, bool)), 7, 2, 3)
    x = _window(x, 3, 2, 0)
    for stage, n in enumerate((*modules, 0), start=1):
        x = _joined(x, _window(x, 3, 1 if stage == 1 else 2, 1), stride=1 if stage == 1 else 2)
        for _ in range(n):
            x = _unit(x)
            trunk = _unit(_unit(x))
            if masks:
                trunk = _joined(trunk, _resized(_below(_window(x, 3, 2, 0), 4 - stage), len(trunk[0])))
            x = _unit(trunk)
        if not n:
            x = _unit(_unit(x))
        low, high, touches = x
        yield set((high - low + 1)[~touches].tolist())


def _below(x: Reach, poolings: int) -> Reach:
    """Units at a level of the mask; with more poolings the levels below, beside a skip unit, and a unit on the way up."""
    if poolings == 1:
        return _unit(_unit(x))
    x = _unit(x)
    below = _resized(_below(_window(x, 3, 2, 0), poolings - 1), len(x[0]))
    return _unit(_joined(_unit(x), below))


def _unit(x: Reach) -> Reach:
    return _joined(x, _window(x, 3, 1, 1))


def _window(x: Reach, kernel: int, stride: int, padding: int) -> Reach:
    low, high, touches = x
    n = len(low)
    size = -(-(n + 2 * padding - kernel) // stride) + 1 if padding == 0 else (n + 2 * padding - kernel) // stride + 1
    at = np.arange(size)[:, None] * stride - padding + np.arange(kernel)
    inside = np.clip(at, 0, n - 1)
    return low[inside].min(1), high[inside].max(1), touches[inside].any(1) | (at != inside).any(1)


def _resized(x: Reach, size: int) -> Reach:
    position = np.arange(size) * (len(x[0]) - 1)
    at = np.stack([position // (size - 1), -(-position // (size - 1))])
    low, high, touches = x
    return low[at].min(0), high[at].max(0), touches[at].any(0)


def _joined(a: Reach, b: Reach, stride: int = 1) -> Reach:
    return np.minimum(a[0][::stride], b[0]), np.maximum(a[1][::stride], b[1]), a[2][::stride] | b[2]
