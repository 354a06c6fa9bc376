"""Cluttered digits: handwritten digits on a textured colour background with clutter, and their true foreground.

All drawing and blending is integer arithmetic, so a seed gives the same bits on every machine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from resattn.training.config import DATASETS, SIDE, Scene

SOURCE_SIDE, SOURCE_MAX = 8, 16  # scikit-learn's digits: 8x8 pixels, ink from 0 to 16
GRAIN = 16  # places and sizes are in sixteenths of a pixel
WEIGHT = 64  # an interpolation weight of 1
OPAQUE = WEIGHT * WEIGHT * SOURCE_MAX
SCALES = (9 * GRAIN // 4, 3 * GRAIN)  # a digit is drawn 18 to 24 pixels wide
FRAGMENTS, STROKES = 3, 2
INK, CLUTTER = (90, 180), (40, 100)  # brighter than the background in each colour by this, of 255; the ranges overlap
SPOTS, GRAINS = 30, 12  # largest deviations of the soft spots and of the single pixels, of 255
TEST_SHARE = 5  # one source digit in five is kept for the test images
CHUNK = 1000

Ints = NDArray[np.int32]


def cluttered_digits(seed: int = 0, *, train: int | None = None, test: int | None = None) -> tuple[Scene, Scene]:
    """Training and test images of the ten digits, made from disjoint sets of handwritten digits.

    The digit, 18 to 24 pixels wide, is drawn last, completely inside the image, at a random position. Under it are
    quarters of other digits of the same sizes, and straight strokes, in mostly, but not always, weaker colours.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits (as sklearn.datasets.load_digits).
    """
    from sklearn.datasets import load_digits

    size = DATASETS["cluttered-digits"]
    digits = load_digits()
    ink, labels = digits.images.astype(np.float32), digits.target.astype(np.uint8)
    # The split of the source digits is part of the dataset and does not depend on the seed.
    order = np.random.default_rng(0).permutation(len(labels))
    n_test = len(labels) // TEST_SHARE
    return (
        _draw(ink[order[n_test:]], labels[order[n_test:]], size.train if train is None else train, [seed, 0]),
        _draw(ink[order[:n_test]], labels[order[:n_test]], size.test if test is None else test, [seed, 1]),
    )


def _draw(ink: NDArray[np.float32], labels: NDArray[np.uint8], n: int, seed: list[int]) -> Scene:
    rng = np.random.default_rng(seed)
    chunks = [_scene(ink, labels, min(CHUNK, n - start), rng) for start in range(0, n, CHUNK)]
    return Scene(*(np.concatenate(parts) for parts in zip(*chunks, strict=True)))


def _scene(ink: NDArray[np.float32], labels: NDArray[np.uint8], n: int, rng: np.random.Generator) -> Scene:
    images, ground = _texture(n, rng)
    for _ in range(FRAGMENTS):
        fragment = ink[rng.integers(len(ink), size=n)] * _quarter(n, rng)
        _blend(images, _placed(fragment, n, rng, inside=False), _colour(ground, CLUTTER, rng))
    for _ in range(STROKES):
        _blend(images, _stroke(n, rng), _colour(ground, CLUTTER, rng))
    chosen = rng.integers(len(ink), size=n)
    digit = _placed(ink[chosen], n, rng, inside=True)
    _blend(images, digit, _colour(ground, INK, rng))
    images += rng.integers(-GRAINS, GRAINS + 1, size=images.shape, dtype=np.int32)
    return Scene(images.clip(0, 255).astype(np.uint8), labels[chosen], digit[:, 0] > OPAQUE // 2)


def _texture(n: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """(n, 3, 32, 32) backgrounds of soft coloured spots, and the mean colour of each, (n, 3)."""
    spots = rng.integers(-SPOTS, SPOTS + 1, size=(n, 3, SOURCE_SIDE, SOURCE_SIDE)).astype(np.float32)
    base = rng.integers(30, 101, size=(n, 3), dtype=np.int32)
    # Stretch the grid of spots over the whole image.
    weights = _weights(np.full(n, GRAIN * SIDE // SOURCE_SIDE), np.zeros(n, np.int64), clamp=True)
    soft = np.matmul(np.matmul(weights[:, None], spots), weights[:, None].transpose(0, 1, 3, 2))
    return base[:, :, None, None] + soft.astype(np.int32) // (WEIGHT * WEIGHT), base


def _colour(ground: Ints, contrast: tuple[int, int], rng: np.random.Generator) -> Ints:
    """(n, 3) colours, in every channel brighter than the background by a random contrast."""
    return ground + rng.integers(*contrast, size=ground.shape, dtype=np.int32)


def _quarter(n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """(n, 8, 8) windows that keep one random 4x4 part of a digit."""
    corner = rng.integers(SOURCE_SIDE // 2 + 1, size=(n, 2, 1))
    kept = (np.arange(SOURCE_SIDE) >= corner) & (np.arange(SOURCE_SIDE) < corner + SOURCE_SIDE // 2)
    return (kept[:, 0, :, None] & kept[:, 1, None, :]).astype(np.float32)


def _placed(ink: NDArray[np.float32], n: int, rng: np.random.Generator, *, inside: bool) -> Ints:
    """(n, 1, 32, 32) opacity of each digit, of OPAQUE, at random size and position: inside, or cut by the edge."""
    scale = rng.integers(SCALES[0], SCALES[1] + 1, size=n)
    slack = GRAIN * SIDE - SOURCE_SIDE * scale
    overhang = 0 if inside else SOURCE_SIDE * SCALES[0] // 2
    rows, columns = (_weights(scale, rng.integers(-overhang, slack + overhang + 1)) for _ in "yx")
    # At most two weights per pixel are not 0, all integers far below 2**24: exact in float32 in any order.
    cover = np.matmul(np.matmul(rows, ink), columns.transpose(0, 2, 1))
    return cover.astype(np.int32)[:, None]


def _weights(scale: NDArray[np.int64], start: NDArray[np.int64], *, clamp: bool = False) -> NDArray[np.float32]:
    """(n, 32, 8) integer weights, of WEIGHT, of 8 source pixels in 32 pixels: linear interpolation."""
    # Position of each pixel's centre along the source, and distance from each source pixel, in units of 1/(2 scale).
    position = (2 * np.arange(SIDE) + 1) * GRAIN - 2 * start[:, None] - scale[:, None]
    if clamp:
        position = position.clip(0, 2 * (SOURCE_SIDE - 1) * scale[:, None])
    distance = np.abs(position[:, :, None] - 2 * scale[:, None, None] * np.arange(SOURCE_SIDE))
    unit = 2 * scale[:, None, None]
    return ((unit - distance).clip(0) * WEIGHT // unit).astype(np.float32)


def _stroke(n: int, rng: np.random.Generator) -> Ints:
    """(n, 1, 32, 32) opacity of straight strokes, two pixels wide and 8 to 22 long."""
    middle = rng.integers(0, SIDE, size=(2, n, 1, 1))
    steep, flat = rng.integers(4, 9, size=(n, 1, 1)), rng.integers(-8, 9, size=(n, 1, 1))
    upright = rng.integers(2, size=(n, 1, 1)) == 1
    dy, dx = np.where(upright, steep, flat), np.where(upright, flat, steep)
    y, x = (np.arange(SIDE).reshape(shape) - m for shape, m in zip(((1, SIDE, 1), (1, 1, SIDE)), middle, strict=True))
    length2 = dy**2 + dx**2
    along, across = y * dy + x * dx, y * dx - x * dy
    on = (across**2 <= length2) & (np.abs(along) <= length2)
    return on.astype(np.int32)[:, None] * OPAQUE


def _blend(images: Ints, cover: Ints, colour: Ints) -> None:
    """Blend a colour into the images, in place."""
    images += (colour[:, :, None, None] - images) * cover // OPAQUE
