"""Models as their authors write them: a U-Net, a vision transformer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def double(i: int, o: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(i, o, 3, padding=1, bias=False),
        nn.BatchNorm2d(o),
        nn.ReLU(),
        nn.Conv2d(o, o, 3, padding=1, bias=False),
        nn.BatchNorm2d(o),
        nn.ReLU(),
    )


class UNet(nn.Module):
    """ronneberger2015, padded: `mode` is how the decoder gets larger: transposed, nearest, bilinear, aligned."""

    def __init__(self, width: int = 64, depth: int = 4, classes: int = 2, mode: str = "transposed") -> None:
        super().__init__()
        widths = [width * 2**k for k in range(depth + 1)]
        self.mode = mode
        self.encoder = nn.ModuleList([double(i, o) for i, o in zip([3, *widths], widths, strict=False)])
        ups = zip(widths[:0:-1], widths[-2::-1], strict=True)
        self.up = nn.ModuleList(
            [nn.ConvTranspose2d(i, o, 2, 2) if mode == "transposed" else nn.Conv2d(i, o, 1) for i, o in ups]
        )
        self.decoder = nn.ModuleList([double(2 * o, o) for o in widths[-2::-1]])
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for k, stage in enumerate(self.encoder):
            x = stage(x if not k else F.max_pool2d(x, 2))
            skips.append(x)
        skips.pop()
        for up, stage in zip(self.up, self.decoder, strict=True):
            if self.mode == "nearest":
                x = F.interpolate(x, scale_factor=2)
            elif self.mode == "bilinear":
                x = F.interpolate(x, scale_factor=2, mode="bilinear")
            elif self.mode == "aligned":
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            x = stage(torch.cat([skips.pop(), up(x)], 1))
        return self.head(x)


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(dim), Attention(dim, heads), nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """dosovitskiy2021, B/16 by default."""

    def __init__(
        self, dim: int = 768, depth: int = 12, heads: int = 12, patch: int = 16, size: int = 224, classes: int = 1000
    ) -> None:
        super().__init__()
        n = (size // patch) ** 2
        self.patch = nn.Conv2d(3, dim, patch, patch)
        self.token, self.position = nn.Parameter(torch.zeros(1, 1, dim)), nn.Parameter(torch.zeros(1, n + 1, dim))
        self.blocks = nn.Sequential(*[Block(dim, heads) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])
