"""Drawings as SVG text, made in milliseconds: for sliders, and for pages of the docs.

Text and lines are `currentColor`, which a page sets. The `aria-label` describes the drawing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH = 940
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def alone(svg: str, ink: str) -> str:
    """The drawing as a file of its own, in a grey that is readable on light and dark pages."""
    return svg.replace("<svg ", f'<svg color="{ink}" ', 1) + "\n"


def drawing(height: float, parts: Sequence[str], label: str, *, width: float = WIDTH) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:.0f}" role="img" '
        f'aria-label="{escape(label)}" font-family="{FONT}" font-size="12" fill="currentColor" '
        f'style="max-width:100%;height:auto" width="{width:g}" height="{height:.0f}">{"".join(parts)}</svg>'
    )


def rect(x: float, y: float, width: float, height: float, **style: Any) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"{attributes(style)}/>'


def line(points: Sequence[tuple[float, float]], **style: Any) -> str:
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path d="{path}"{attributes({"fill": "none", "stroke": "currentColor", **style})}/>'


def text(x: float, y: float, words: str, **style: Any) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}"{attributes(style)}>{escape(words)}</text>'


def attributes(attributes: Mapping[str, Any]) -> str:
    return "".join(f' {name.replace("_", "-")}="{value}"' for name, value in attributes.items())
