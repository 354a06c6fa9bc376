"""Drawings written as SVG text, in milliseconds: what moves under a slider, and what a page of the docs shows.

Each takes a frame or a few plain values and returns one `<svg>` element. Words and lines are `currentColor`, which a
page sets; the colours of roles are those of all figures. The `aria-label` says what is to be seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Any

import pandas as pd

from analysis.figures.plots import INK, ROLES, heights
from analysis.tables.names import display_name

WIDTH = 940
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
RIVAL = "#17717A"  # of a ResNet that a network is compared with
PALE = 0.45


def alone(svg: str) -> str:
    """The drawing as a file of its own: a grey that can be read on a light page and on a dark one."""
    return svg.replace("<svg ", f'<svg color="{INK}" ', 1) + "\n"


def _svg(height: float, parts: Sequence[str], label: str, *, width: float = WIDTH) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:.0f}" role="img" '
        f'aria-label="{escape(label)}" font-family="{FONT}" font-size="12" fill="currentColor" '
        f'style="max-width:100%;height:auto" width="{width:g}" height="{height:.0f}">{"".join(parts)}</svg>'
    )


def _rect(x: float, y: float, width: float, height: float, **style: Any) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"{_style(style)}/>'


def _line(points: Sequence[tuple[float, float]], **style: Any) -> str:
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path d="{path}"{_style({"fill": "none", "stroke": "currentColor", **style})}/>'


def _text(x: float, y: float, words: str, **style: Any) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}"{_style(style)}>{escape(words)}</text>'


def _style(style: Mapping[str, Any]) -> str:
    return "".join(f' {name.replace("_", "-")}="{value}"' for name, value in style.items())


# -- a network


def network_sketch(layers: pd.DataFrame) -> str:
    """A network to scale: a layer is one step long and as wide as its multiply-adds, so that area is cost.

    The mask hangs below its trunk, a step lower at each halving of its map; a projection stands above. The longest
    path is traced; layers that are not on it are pale. `layers`: of `frames.layer_frame`.
    """
    rows = layers.assign(y=heights(layers)).to_dict("records")
    unit = max(row["macs"] for row in rows)
    for row in rows:
        row["tall"] = max(row["macs"] / unit, 0.012)
    end = max(row["start"] for row in rows) + 1
    low = min(row["y"] - row["tall"] / 2 for row in rows)
    high = max(row["y"] + row["tall"] / 2 for row in rows)
    step, scale, above = WIDTH / end, 74.0, 26.0

    def at(x: float, y: float) -> tuple[float, float]:
        return x * step, above + (high - y) * scale

    gap = min(0.06 * step, 1.0)
    parts = [_line([at(0, 0), at(end, 0)], stroke_opacity=0.5, stroke_width=0.8)]
    for row in rows:
        x, y = at(row["start"], row["y"] + row["tall"] / 2)
        alpha = {} if row["on_longest"] else {"fill_opacity": PALE}
        parts.append(_rect(x + gap, y, step - 2 * gap, row["tall"] * scale, fill=ROLES[row["role"]], **alpha))
    path = sorted((row for row in rows if row["on_longest"]), key=lambda row: row["start"])
    trace = [at(row["start"] + k, row["y"]) for row in path for k in (0, 1)]
    parts.append(_line(trace, stroke_width=1.3, stroke_linejoin="round"))
    parts += _stage_words(rows, at)
    bottom = above + (high - low) * scale + 8
    parts += _module_words(rows, step, bottom)
    height = bottom + 26
    parts += _network_key(rows, height)
    n_trunk, n_longest = sum(row["on_trunk"] for row in rows), len(path)
    share = sum(row["macs"] for row in rows if row["role"] == "mask") / sum(row["macs"] for row in rows)
    label = (
        f"{display_name(rows[0]['network'])} to scale: {n_trunk} weighted layers along the trunk, {n_longest} along "
        f"the longest path, {len(rows)} in all. The masks take {100 * share:.0f} % of the multiply-adds."
    )
    return _svg(height + 22, parts, label)


def _stage_words(rows: Sequence[Mapping[str, Any]], at: Any) -> list[str]:
    parts = []
    for stage, group in groupby(rows, key=lambda row: row["stage"]):
        part = list(group)
        if not stage.startswith("stage"):
            continue
        (x0, _), (x1, _) = at(min(r["start"] for r in part), 0), at(max(r["start"] for r in part) + 1, 0)
        parts.append(_line([(x0 + 2, 19), (x1 - 2, 19)], stroke_opacity=0.6))
        size = next(r["size_px"] for r in reversed(part) if r["role"] == "trunk")
        words = f"stage {stage.removeprefix('stage')}" + (f", {size} px" if x1 - x0 > 96 else "")
        if x1 - x0 > 46:
            parts.append(_text((x0 + x1) / 2, 13, words, text_anchor="middle"))
    return parts


def _module_words(rows: Sequence[Mapping[str, Any]], step: float, bottom: float) -> list[str]:
    parts = []
    modules: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["module"]:
            modules.setdefault((row["stage"], row["module"]), []).append(row)
    for part in modules.values():
        x0 = min(r["start"] for r in part) * step
        x1 = (max(r["start"] for r in part) + 1) * step
        n_longest, n_trunk = sum(r["on_longest"] for r in part), sum(r["on_trunk"] for r in part)
        ends = [(x0 + 2, bottom - 5), (x0 + 2, bottom), (x1 - 2, bottom), (x1 - 2, bottom - 5)]
        parts.append(_line(ends, stroke_width=0.8))
        room = x1 - x0
        words = f"{n_longest} layers, {n_trunk} by the trunk" if room > 160 else f"{n_longest} ({n_trunk})"
        if room > 40:
            parts.append(_text((x0 + x1) / 2, bottom + 15, words, text_anchor="middle"))
    return parts


def _network_key(rows: Sequence[Mapping[str, Any]], y: float) -> list[str]:
    parts, x = [], 2.0
    for role in ROLES:
        if any(row["role"] == role for row in rows):
            parts += [_rect(x, y + 3, 11, 11, fill=ROLES[role]), _text(x + 16, y + 13, role)]
            x += 16 + 7.0 * len(role) + 18
    parts += [_line([(x, y + 9), (x + 20, y + 9)], stroke_width=1.3), _text(x + 26, y + 13, "longest path")]
    x += 26 + 7.0 * 12 + 16
    parts += [_rect(x, y + 3, 11, 11, fill=ROLES["trunk"], fill_opacity=PALE), _text(x + 16, y + 13, "not on it")]
    words = "length: layers; height: multiply-adds"
    return [*parts, _text(WIDTH, y + 13, words, text_anchor="end")]


# -- how long its paths are


@dataclass(frozen=True)
class Paths:
    """The path lengths of one network: weighted layers -> how many paths, exact."""

    name: str
    lengths: Mapping[int, int]

    def shares(self, step: int, steps: int) -> list[float]:
        total = sum(self.lengths.values())
        found = [0] * steps
        for length, count in self.lengths.items():
            found[length // step] += count
        return [count / total for count in found]

    @property
    def mean(self) -> float:
        return sum(n * c for n, c in self.lengths.items()) / sum(self.lengths.values())


BIN = 6  # layers; units of two and of three layers give paths that differ by 2 or by 3


def path_sketch(networks: Sequence[Paths]) -> str:
    """The share of paths against their weighted layers, a row for each network, its mean marked. The first is ours."""
    longest = max(max(paths.lengths) for paths in networks)
    steps = longest // BIN + 1
    row, left, wide = 74.0, 0.0, WIDTH / steps
    shares = [paths.shares(BIN, steps) for paths in networks]
    tallest = max(map(max, shares))
    parts, said = [], []
    for k, (paths, found) in enumerate(zip(networks, shares, strict=True)):
        base = 22 + row * (k + 1) - 24
        fill = ROLES["mask"] if k == 0 else RIVAL
        for i, share in enumerate(found):
            if (tall := share / tallest * (row - 40)) > 0.2:
                parts.append(_rect(left + i * wide, base - tall, max(wide - 0.6, 0.4), tall, fill=fill))
        parts.append(_line([(0, base), (WIDTH, base)], stroke_opacity=0.5, stroke_width=0.7))
        x = left + (paths.mean + 0.5) / BIN * wide
        parts.append(_line([(x, base), (x, base - row + 20)], stroke_width=1.6))
        words = f"{display_name(paths.name)}: mean {paths.mean:.1f}"
        right = x < WIDTH * 0.6
        parts.append(_text(x + (6 if right else -6), base - row + 28, words, text_anchor="start" if right else "end"))
        said.append(f"{display_name(paths.name)}: {paths.mean:.1f} layers on the mean path")
    base = 22 + row * len(networks) - 24
    every = next(n for n in (10, 20, 50, 100, 200, 500) if longest / n <= 10)
    parts += [
        _text(left + n / BIN * wide, base + 15, f"{n}", text_anchor="middle" if n else "start")
        for n in range(0, longest + 1, every)
    ]
    parts.append(_text(WIDTH, base + 30, "weighted layers on a path; height: share of all paths", text_anchor="end"))
    return _svg(base + 36, parts, f"Path lengths. {'; '.join(said)}.")


# -- what it sees


def sight_sketch(stages: Mapping[str, Mapping[str, int]], input_px: int) -> str:
    """Squares that a unit at each stage's end sees, trunk alone beside with the masks, over the input's own square.

    `stages`: stage -> branch ("trunk", "mask") -> side in px.
    """
    branches = [b for b in ("trunk", "mask") if any(b in sides for sides in stages.values())]
    most = max(input_px, *(side for sides in stages.values() for side in sides.values()))
    panel, beside, top = 190.0, 142.0, 30.0
    parts, said = [], []
    for k, branch in enumerate(branches):
        x0 = k * (panel + beside)
        cx, cy = x0 + panel / 2, top + panel / 2
        inner = panel * input_px / most
        words = "along the trunk alone" if branch == "trunk" else "through the masks"
        parts.append(_text(x0, 16, words, font_weight=600))
        parts.append(_rect(cx - inner / 2, cy - inner / 2, inner, inner, fill="currentColor", fill_opacity=0.16))
        for stage, sides in stages.items():
            side = panel * sides[branch] / most
            at = (cx - side / 2, cy - side / 2, side, side)
            parts.append(_rect(*at, fill="none", stroke=ROLES[branch], stroke_width=1.8))
            said.append(f"{stage}, {branch}: {sides[branch]}")
        for i, (stage, sides) in enumerate(stages.items()):
            y = top + 20 + 22 * i
            parts.append(_text(x0 + panel + 14, y, f"{stage.replace('stage', 'stage ')}: {sides[branch]:,} px"))
        y = top + 20 + 22 * len(stages)
        parts.append(_rect(x0 + panel + 14, y - 10, 11, 11, fill="currentColor", fill_opacity=0.16))
        parts.append(_text(x0 + panel + 31, y, f"the input, {input_px} px"))
    label = f"Sides in px of what a unit at each stage's end sees. {'; '.join(said)}."
    return _svg(top + panel + 6, parts, label, width=2 * (panel + beside))


# -- what a notion of depth counts

BOX, ROW = 34.0, 62.0


def notion_sketch(layers: pd.DataFrame, chosen: frozenset[str], words: str) -> str:
    """The layers of a small network as boxes, those that count full, with the way through them traced.

    The trunk runs along the top and the mask hangs below it; an arc is the identity path of a residual unit, drawn
    strongly where the way takes it. `layers`: of `frames.layer_frame`. `chosen`: layer paths that count.
    """
    rows = layers.to_dict("records")
    end = max(row["start"] for row in rows) + 1
    step, left = 41.0, 30.0
    top = 62.0
    width = left + end * step + 30

    def middle(row: Mapping[str, Any]) -> tuple[float, float]:
        below = row["role"] == "mask"
        return left + (row["start"] + 0.5) * step, top + (ROW if below else 0)

    masks = [row for row in rows if row["role"] == "mask"]
    parts = [_line([(left - 22, top), (width - 8, top)], stroke_opacity=0.45)]
    if masks:
        x0, x1 = middle(masks[0])[0] - step / 2, middle(masks[-1])[0] + step / 2
        ends = [(x0 - 2, top), (x0 - 2, top + ROW), (x1 + 2, top + ROW), (x1 + 2, top)]
        parts.append(_line(ends, stroke_opacity=0.45))
    whole = len(chosen) == len(rows)
    passed: list[tuple[float, float]] = []
    for unit, group in groupby(rows, key=lambda row: _unit(row["layer"])):
        part = list(group)
        if unit:
            taken = not whole and not chosen & {row["layer"] for row in part} and _is_passed(part, rows, chosen)
            x0, x1, y = middle(part[0])[0] - BOX / 2 - 2, middle(part[-1])[0] + BOX / 2 + 2, middle(part[0])[1]
            parts.append(_arc(x0, x1, y, taken))
            passed += [(x0, x1)] if taken else []
    for row in rows:
        x, y = middle(row)
        full = row["layer"] in chosen
        style = {"fill": ROLES[row["role"]], "fill_opacity": 1 if full else 0.22, "rx": 3}
        parts.append(_rect(x - BOX / 2, y - 13, BOX, 26, **style))
    if passed:  # the way is level between the arcs
        marks = [left - 22, *(x for arc in passed for x in arc), width - 8]
        parts += [_line([(a, top), (b, top)], stroke_width=1.8) for a, b in zip(marks[::2], marks[1::2], strict=True)]
    elif not whole:
        way = [middle(row) for row in sorted(rows, key=lambda row: row["start"]) if row["layer"] in chosen]
        parts.append(_line(_steps([(left - 22, top), *way, (width - 8, top)], step), stroke_width=1.8))
    parts.append(_text(left - 22, 18, words, font_size=14, font_weight=600))
    return _svg(top + ROW + 24, parts, words, width=width)


def _unit(layer: str) -> str:
    """The residual unit that a layer belongs to, by its path; empty for a layer of none."""
    parts = layer.split(".")
    at = max((i for i, part in enumerate(parts[:-1]) if part.startswith("unit")), default=-1)
    return ".".join(parts[: at + 1])


def _is_passed(part: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], chosen: frozenset[str]) -> bool:
    """Does the way pass a unit that it has no layer in, rather than run beside the branch that holds it?"""
    on_mask = any(row["role"] == "mask" and row["layer"] in chosen for row in rows)
    return (part[0]["role"] == "mask") is on_mask or not part[0]["module"]


def _arc(x0: float, x1: float, y: float, is_taken: bool) -> str:
    up = y - 34
    style = {"stroke_width": 1.8} if is_taken else {"stroke_opacity": 0.45}
    path = f"M{x0:.1f} {y:.1f}C{x0 + 6:.1f} {up:.1f} {x1 - 6:.1f} {up:.1f} {x1:.1f} {y:.1f}"
    return f'<path d="{path}"{_style({"fill": "none", "stroke": "currentColor", **style})}/>'


def _steps(points: Sequence[tuple[float, float]], step: float) -> list[tuple[float, float]]:
    """The points joined by level stretches and upright ones, as a signal runs."""
    way = [points[0]]
    for x, y in points[1:]:
        before_x, before_y = way[-1]
        if y != before_y:
            turn = x - step / 2 - 2 if y > before_y else before_x + step / 2 + 2
            way += [(turn, before_y), (turn, y)]
        way.append((x, y))
    return way
