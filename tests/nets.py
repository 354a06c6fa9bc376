"""Tiny nets, named by the property that makes them hard to measure, and the shapes of their inputs: `NETS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Net:
    """A net and the shapes of its inputs, batch included."""

    make: Callable[[], nn.Module]
    shapes: tuple[Shape, ...]


NETS: dict[str, Net] = {}


def net(*shapes: Shape) -> Callable[[type[nn.Module]], type[nn.Module]]:
    def enter(made: type[nn.Module]) -> type[nn.Module]:
        NETS[made.__name__] = Net(made, shapes)
        return made

    return enter


def conv(c_in: int, c_out: int, kernel: int = 3, stride: int = 1, **more: int | str | bool) -> nn.Conv2d:
    """A convolution without bias that keeps the size (over its stride)."""
    padding = more.pop("dilation_padding", kernel // 2)
    return nn.Conv2d(c_in, c_out, kernel, stride, padding, bias=False, **more)  # type: ignore[arg-type]


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


# -- MiniRAN: the one model on which eleven tools give eleven answers


class Bottleneck(nn.Module):
    """Pre-activation: 1x1, 3x3 (with the stride), 1x1; the projection reads the activated input."""

    def __init__(self, c_in: int, inner: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(c_in), conv(c_in, inner, 1)
        self.norm2, self.conv2 = nn.BatchNorm2d(inner), conv(inner, inner, 3, stride)
        self.norm3, self.conv3 = nn.BatchNorm2d(inner), conv(inner, c_out, 1)
        changes = stride != 1 or c_in != c_out
        self.projection = conv(c_in, c_out, 1, stride) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm1(x))
        identity = x if self.projection is None else self.projection(active)
        y = self.conv2(F.relu(self.norm2(self.conv1(active))))
        return self.conv3(F.relu(self.norm3(y))) + identity


class MiniAttention(nn.Module):
    def __init__(self, c: int, inner: int) -> None:
        super().__init__()
        self.first = Bottleneck(c, inner, c)
        self.trunk = nn.Sequential(Bottleneck(c, inner, c), Bottleneck(c, inner, c))
        self.soft = nn.Sequential(nn.MaxPool2d(3, 2, 1), Bottleneck(c, inner, c), Bottleneck(c, inner, c))
        self.norm1, self.conv1 = nn.BatchNorm2d(c), conv(c, c, 1)
        self.norm2, self.conv2 = nn.BatchNorm2d(c), conv(c, c, 1)
        self.last = Bottleneck(c, inner, c)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        t = self.trunk(x)
        m = F.interpolate(self.soft(x), size=t.shape[-2:], mode="bilinear", align_corners=False) + t
        m = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(m))))))
        return self.last((1 + torch.sigmoid(m)) * t)


@net((1, 3, 32, 32))
class MiniRAN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.down = conv(3, 16), MiniAttention(16, 4), Bottleneck(16, 8, 32, 2)
        self.fc = nn.Linear(32, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.down(self.a(self.stem(x)))).mean((2, 3)))


# -- weights and where they are


@net((1, 3, 8, 8))
class FunctionalConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, padding=1)


@net((1, 8, 8, 8))
class WeightNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = weight_norm(nn.Conv2d(8, 8, 3, padding=1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


@net((1, 8, 8, 8))
class WeightStandardised(nn.Conv2d):
    def __init__(self) -> None:
        super().__init__(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, w / (w.std((1, 2, 3), keepdim=True) + 1e-5), self.bias, padding=1)


@net((1, 2, 8, 8))
class KernelFromParts(nn.Module):
    """A kernel laid together, by writes in place, from two parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.rim, self.core = nn.Parameter(torch.ones(2, 2, 3, 3)), nn.Parameter(torch.ones(2, 2))

    def forward(self, x: Tensor) -> Tensor:
        kernel = torch.zeros(2, 2, 3, 3, dtype=x.dtype)
        kernel[:] = self.rim
        kernel[:, :, 1, 1] = self.core
        return F.conv2d(x, kernel, padding=1)


@net((1, 4, 8, 8))
class ParameterData(nn.Module):
    """Reads `weight.data`, which is another tensor object on the parameter's memory."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.conv.weight.data, padding=1)


@net((1, 4, 8, 8))
class Blur(nn.Module):
    """A convolution with a constant kernel, which is no weighted layer, behind one with weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(4, 4)
        self.register_buffer("kernel", torch.ones(4, 1, 3, 3) / 9)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.conv(x), self.kernel, padding=1, groups=4)


@net((1, 4, 8, 8))
class RunTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv(x))


@net((1, 4, 8, 8))
class SeveralNames(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = conv(4, 4)
        self.second = self.first
        self.third = conv(4, 4)
        self.third.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.second(self.first(x)))


@net((1, 4, 8, 8))
class PlainLists(nn.Module):
    """Modules that torch does not see as children: in lists, in a dictionary, behind an underscore."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [conv(4, 4), nn.BatchNorm2d(4)]
        self.by_name = {"head": conv(4, 4)}
        self._nested = [[conv(4, 4)]]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self._nested[0][0](self.by_name["head"](x))


@net((1, 4, 8, 8))
class HiddenModule(nn.Module):
    """A module that only a closure holds: no walk over the model finds it."""

    def __init__(self) -> None:
        super().__init__()
        inner = nn.Sequential(conv(4, 4), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.run = lambda x: inner(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


@net((1, 4, 8, 8))
class DeadProjection(nn.Module):
    """Defines a projection and runs it only where shapes change, which is never."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.projection = conv(4, 4), conv(4, 4), conv(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        return y + (self.projection(x) if y.shape != x.shape else x)


@net((1, 4, 8, 8))
class TensorList(nn.Module):
    """Parameters in a plain list of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = [nn.Parameter(torch.ones(4, 4, 3, 3)), nn.Parameter(torch.ones(4, 4, 1, 1))]

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, self.weights[0], padding=1), self.weights[1])


# -- kinds of convolutions and products


@net((1, 8, 8, 8))
class TransposedConv(nn.ConvTranspose2d):
    def __init__(self) -> None:
        super().__init__(8, 4, 2, stride=2, bias=False)


@net((1, 8, 8, 8))
class GroupedTransposed(nn.ConvTranspose2d):
    def __init__(self) -> None:
        super().__init__(8, 4, 3, stride=2, padding=1, output_padding=1, groups=2, bias=False)


@net((1, 8, 9, 9))
class GroupedDilated(nn.Conv2d):
    def __init__(self) -> None:
        super().__init__(8, 8, 3, padding=2, dilation=2, groups=4)


@net((1, 8, 8, 8))
class Depthwise(nn.Conv2d):
    def __init__(self) -> None:
        super().__init__(8, 16, 3, padding=1, groups=8)


@net((2, 4, 16))
class Conv1d(nn.Conv1d):
    def __init__(self) -> None:
        super().__init__(4, 6, 5, stride=2)


@net((1, 2, 6, 6, 6))
class Conv3d(nn.Conv3d):
    def __init__(self) -> None:
        super().__init__(2, 3, (1, 3, 3), padding=(0, 1, 1))


@net((1, 3, 4, 4))
class DynamicConv(nn.Module):
    """A kernel that the data makes: a weighted layer whose weights are no parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2 * 3 * 9)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.fc(x.mean((2, 3))).view(2, 3, 3, 3), padding=1)


@net((2, 5, 8))
class Tokens(nn.Linear):
    """A linear layer on tokens: every token meets the matrix."""

    def __init__(self) -> None:
        super().__init__(8, 3)


@net((2, 5, 8), (2, 7, 8))
class Einsum(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.einsum("bid,bjd->bij", x, y)


@net((1, 4, 6, 6))
class EinsumWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bchw,cd->bdhw", x, self.weight)


@net((2, 3, 4), (2, 4, 5))
class MatMul(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x @ y


@net((1, 12, 64, 64), (1, 12, 64, 64), (1, 12, 64, 64))
class FusedAttention(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)


@net((1, 12, 64, 64), (1, 12, 64, 64), (1, 12, 64, 64))
class WrittenAttention(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.transpose(-2, -1) / 8).softmax(-1) @ v


@net((1, 6, 8))
class SelfAttention(nn.Module):
    """Reads `out_proj.weight` without calling `out_proj`; in evaluation torch has a fast path of one call."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


@net((1, 6, 8))
class EncoderLayer(nn.TransformerEncoderLayer):
    def __init__(self) -> None:
        super().__init__(8, 2, 16, dropout=0.0, batch_first=True)


# -- what a forward may do


@net((1, 4, 8, 8))
class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(4, 4), conv(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv1(x), inplace=True)
        y += x
        y.mul_(2.0)
        return self.conv2(y)


@net((1, 2, 8, 8))
class Interleaved(nn.Module):
    """Two results written into every other row of a tensor that was made as zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.even, self.odd = conv(2, 2), conv(2, 2, 5)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        out = torch.zeros(n, c, 2 * h, w, dtype=x.dtype)
        out[:, :, ::2] = self.even(x)
        out[:, :, 1::2] = self.odd(self.even(x))
        return out


@net((1, 4, 8, 8))
class ShiftedHalves(nn.Module):
    """Half of the channels moved up, half down, by writes through views (a temporal shift)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(4, 4), conv(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        out = torch.zeros_like(x)
        out[:, :2, :-1] = x[:, :2, 1:]
        out[:, 2:, 1:] = x[:, 2:, :-1]
        return self.conv2(out)


@net((1, 2, 8, 8))
class HalfWritten(nn.Module):
    """A write to one half of a tensor, which the other half does not see."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = conv(2, 4), conv(2, 2), conv(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x)
        a, b = y[:, :2], y[:, 2:]
        a.add_(self.conv2(a.clone()))
        return self.conv3(b)


@net((1, 2, 8, 8))
class ReadThroughOldView(nn.Module):
    """A view taken before its base is written to."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(2, 2), conv(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x)
        view = y[:, :, 1:]
        y.copy_(self.conv2(y.clone()))
        return view


@net((1, 2, 8, 8))
class FlatWrite(nn.Module):
    """A write through a view of another shape."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y.view(y.shape[0], -1).mul_(3.0)
        return y


@net((1, 2, 8, 8))
class Overwritten(nn.Module):
    """The first convolution's result is thrown away: no path leads through it."""

    def __init__(self) -> None:
        super().__init__()
        self.lost, self.kept = conv(2, 2, 5), conv(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.lost(x)
        y.copy_(self.kept(x))
        return y


@net((1, 2, 8, 8))
class ZeroedRows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(2, 2), conv(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x)
        y[:, :, :3] = 0
        return self.conv2(y)


@net((1, 2, 8, 8))
class OutArgument(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(2, 2), conv(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        torch.add(self.conv1(x), x, out=out)
        return self.conv2(out)


@net((1, 4, 12, 12))
class ShapeLoop(nn.Module):
    """As many convolutions as halvings fit into the map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        while x.shape[-1] > 3:
            x = F.max_pool2d(self.conv(x), 2)
        return x


@net((1, 4, 8, 8))
class DictOutput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = conv(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor | list[Tensor]]:
        y = self.conv(x)
        return {"maps": [y], "scores": self.fc(y.mean((2, 3)))}


@net((1, 3, 8, 8), (1, 2, 4, 4))
class SeveralInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 4), conv(2, 4)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.a(x) + F.interpolate(self.b(y), size=x.shape[-2:])


@net((1, 4, 8, 8))
class DataDependent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.conv(y) if x.sum() > -1e9 else y


@net((1, 4, 8, 8))
class ConstantItem(nn.Module):
    """Asks for the value of a tensor that no data reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(4, 4)
        self.register_buffer("times", torch.tensor(2))

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(int(self.times.item())):
            x = self.conv(x)
        return x * torch.linspace(0, 1, 3)[1].item()


@net((1, 4, 8, 8))
class Counting(nn.Module):
    """Writes to its buffers in forward, with data and without."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(4, 4)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y = self.conv(x)
        self.mean.mul_(0.9).add_(0.1 * y.mean((0, 2, 3)))
        return y - self.mean.view(1, -1, 1, 1)


@net((1, 4, 8, 8))
class Identity(nn.Module):
    """Gives its input back beside a map: a path without any layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, self.conv(x)


@net((1, 4, 8, 8))
class PhantomShape(nn.Module):
    """One map resized to another's size, which is all that is read of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.large = conv(4, 4, 3, 2), conv(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        like = self.large(x)
        zeros = torch.zeros_like(like) + like.new_zeros(like.shape)
        return F.interpolate(self.small(x), size=like.shape[-2:]) + zeros


@net((1, 4, 8, 8))
class Autocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.conv(self.conv(x))


# -- gates


class Squeeze(nn.Module):
    """x * sigmoid(fc(relu(fc(mean(x))))) (hu2018)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(c, c // 2), nn.Linear(c // 2, c)

    def forward(self, x: Tensor) -> Tensor:
        s = torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3))))))
        return x * s[:, :, None, None]


@net((1, 4, 8, 8))
class SqueezeExcitation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = conv(4, 4), Squeeze(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(self.conv(x))


@net((1, 4, 8, 8))
class CBAM(nn.Module):
    """Channel gate over mean and maximum, then a spatial gate over both (woo2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc1, self.fc2 = conv(4, 4), conv(4, 2, 1), conv(2, 4, 1)
        self.spatial = conv(2, 1, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        mean, most = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        x = torch.sigmoid(self.fc2(F.relu(self.fc1(mean))) + self.fc2(F.relu(self.fc1(most)))) * x
        both = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return torch.sigmoid(self.spatial(both)) * x


@net((1, 4, 8, 8))
class GatedUnit(nn.Module):
    """GLU with a convolution each for the value and for its gate."""

    def __init__(self) -> None:
        super().__init__()
        self.value, self.gate = conv(4, 4), conv(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.value(x) * torch.sigmoid(self.gate(x))


@net((1, 4, 8, 8))
class WaveNet(nn.Module):
    """tanh(a) * sigmoid(b): the sigmoid is the gate (oord2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.filter, self.gate = conv(4, 4), conv(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.filter(x)) * torch.sigmoid(self.gate(x))


@net((1, 4, 8, 8))
class OneConvGLU(nn.Module):
    """F.glu over the halves of one convolution, which feeds value and gate alike."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        return F.glu(self.conv(x), 1)


@net((1, 4, 8, 8))
class Swish(nn.Module):
    """x * sigmoid(x): an activation, no mask."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(4, 4), conv(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return self.conv2(x * torch.sigmoid(x))


@net((1, 4, 8, 8))
class MaskOutput(nn.Module):
    """A segmentation head that is called mask and gates nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.mask = conv(4, 4), nn.Sequential(conv(4, 4), conv(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.mask(self.body(x)))


@net((1, 4, 8, 8))
class Pyramid(nn.Module):
    """A lateral 1x1 beside an up-sampled way (lin2017): no residual unit, so no shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.lateral = conv(4, 4), conv(4, 4, 1)
        self.down1, self.down2 = conv(4, 4, 3, 2), conv(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.lateral(x) + F.interpolate(self.down2(self.down1(x)), size=x.shape[-2:])


@net((1, 4, 8, 8))
class PooledShortcut(nn.Module):
    """ResNet-D: the projection reads a pooled input (he2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(4, 4, 3, 2), conv(4, 8)
        self.projection, self.norm = conv(4, 8, 1), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(x)))
        return y + self.norm(self.projection(F.avg_pool2d(x, 2)))


# -- receptive fields: published tables and tools disagree on these


class Branches(nn.Module):
    """The sum of several ways through."""

    def __init__(self, *ways: nn.Module) -> None:
        super().__init__()
        self.ways = nn.ModuleList(ways)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([way(x) for way in self.ways]).sum(0)


class Resize(nn.Module):
    def __init__(self, factor: float, mode: str = "nearest", aligned: bool = False) -> None:
        super().__init__()
        self.factor, self.mode = factor, mode
        self.aligned = aligned if mode in ("bilinear", "bicubic") else None

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=self.factor, mode=self.mode, align_corners=self.aligned)


class LastShortcut(nn.Module):
    """Three 3x3, and a 1x1 on the shortcut that runs last."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.projection = nn.Sequential(conv(2, 2), conv(2, 2), conv(2, 2)), conv(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.projection(x)


class SmallMask(nn.Module):
    """A stem, a trunk of two, and a pooled, up-sampled mask that multiplies it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.trunk = conv(2, 2), nn.Sequential(conv(2, 2), conv(2, 2))
        self.soft = nn.Sequential(nn.MaxPool2d(3, 2, 1), conv(2, 2), Resize(2, "bilinear"))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.trunk(x) * (1 + torch.sigmoid(self.soft(x)))


class Hourglass(nn.Module):
    """Nested down- and up-sampling: pool, convolve, the next level beside a skip, convolve, resize back."""

    def __init__(self, c: int, depth: int, *, mode: str = "bilinear", aligned: bool = True, ceil: bool = True) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(3, 2, 0 if ceil else 1, ceil_mode=ceil)
        self.down, self.up = conv(c, c), conv(c, c)
        self.inner = Hourglass(c, depth - 1, mode=mode, aligned=aligned, ceil=ceil) if depth > 1 else None
        self.skip = conv(c, c, 1) if depth > 1 else None
        self.mode, self.aligned = mode, aligned if mode != "nearest" else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(self.pool(x))
        if self.inner is not None and self.skip is not None:
            y = self.skip(y) + self.inner(y)
        return F.interpolate(self.up(y), size=x.shape[-2:], mode=self.mode, align_corners=self.aligned)


def made(name: str) -> tuple[nn.Module, Sequence[Shape]]:
    """A fresh net, always with the same weights, and the shapes of its inputs."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return NETS[name].make(), NETS[name].shapes
