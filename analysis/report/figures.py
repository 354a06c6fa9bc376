"""Figures as part of a page: an SVG file made safe to inline, with its text alternative.

`analysis.figures` draws words and axes in `currentColor`, so an inline figure follows the page from light to dark.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from analysis.tables.files import read_regular

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
HREFS = ("href", f"{{{XLINK}}}href")
PX_PER = {"pt": 4 / 3, "px": 1.0, "": 1.0, "in": 96.0}

# What a drawing needs. Anything else, scripts and foreign content among it, is left out with all that it holds.
_DRAWING = (
    "svg g defs use symbol path rect circle ellipse line polyline polygon text tspan textPath image clipPath mask "
    "pattern marker linearGradient radialGradient stop"
)
DRAWING = frozenset(_DRAWING.split())

MOST_BYTES = 8_000_000  # of a file that is read
NO_TEXT = "This figure was saved without a description of what it shows."


class FigureError(ValueError):
    """A file that is no SVG drawing."""


@dataclass(frozen=True)
class Figure:
    """A drawing as markup for a page, what it shows in words, its title, and its own width."""

    name: str
    title: str
    alt: str
    svg: Markup
    width_px: float | None


def read_figure(path: Path, *, prefix: str) -> Figure:
    """The drawing in an SVG file; `prefix` keeps its ids apart from those of the other drawings of a page.

    Raises: FigureError, naming the file.
    """
    try:
        text = read_regular(path, MOST_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise FigureError(f"{path.name} cannot be read ({error})") from error
    return figure(text, name=path.stem, prefix=prefix)


def figure(text: str, *, name: str, prefix: str) -> Figure:
    """The drawing in the text of an SVG file. Raises: FigureError."""
    try:
        return _figure(ET.fromstring(text), name, prefix)
    except (ET.ParseError, UnicodeError) as error:
        raise FigureError(f"{name} is no SVG ({error})") from error
    except RecursionError as error:
        raise FigureError(f"{name} is nested too deep to be shown") from error


def _figure(root: ET.Element, name: str, prefix: str) -> Figure:
    if _local(root) != "svg":
        raise FigureError(f"{name} is no SVG (it begins with <{_local(root)}>)")
    title, description = _words(root, "title"), _words(root, "desc")
    label = " ".join((root.get("aria-label") or "").split())
    alt = description or label or title or NO_TEXT
    width = _width_px(root)
    if "viewBox" not in root.attrib and (height := root.get("height")) and width:
        root.set("viewBox", f"0 0 {root.get('width', '').rstrip('ptx')} {height.rstrip('ptx')}")
    _clean(root, re.sub(r"[^\w-]", "-", prefix))
    for attribute in ("width", "height", "id", "aria-labelledby", "aria-describedby", "version"):
        root.attrib.pop(attribute, None)
    root.set("role", "img")
    root.set("aria-label", alt)
    root.set("style", "stroke-linejoin:round;stroke-linecap:butt;fill:currentColor")  # as matplotlib's own style sheet
    return Figure(name, title, alt, Markup(_serialised(root)), width)  # safe: only what `_clean` let through


def _serialised(root: ET.Element) -> str:
    ET.register_namespace("", SVG)
    ET.register_namespace("xlink", XLINK)
    return ET.tostring(root, encoding="unicode")


def _local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _words(root: ET.Element, tag: str) -> str:
    """The text of a child of the root, or of an RDF description below it."""
    child = next((child for child in root if _local(child) == tag), None)
    return " ".join("".join(child.itertext()).split()) if child is not None else ""


def _width_px(root: ET.Element) -> float | None:
    match = re.fullmatch(r"(\d{1,5}(?:\.\d*)?)(pt|px|in|)", root.get("width", "").strip()[:30], re.ASCII)
    return float(match[1]) * PX_PER[match[2]] if match else None


def _clean(element: ET.Element, prefix: str) -> None:
    for name, value in list(element.attrib.items()):
        local = name.rpartition("}")[2].lower()
        if local.startswith("on") or (name in HREFS and not _is_inside(value)):
            del element.attrib[name]
        elif name == "id":
            element.set(name, f"{prefix}-{value}")
        elif name in HREFS:
            element.set(name, re.sub("^#", f"#{prefix}-", value.strip()))
        elif _loads(value):
            del element.attrib[name]
        else:
            element.set(name, re.sub(r"url\(\s*(['\"]?)#", rf"url(\1#{prefix}-", value))
    if _local(element) in ("text", "tspan"):
        _mix_words(element)
    for child in list(element):
        if _local(child) in DRAWING:
            _clean(child, prefix)
        else:
            element.remove(child)


def _mix_words(element: ET.Element) -> None:
    """Draw coloured words with the page's ink in their colour: a hue that marks a line on light and dark may be too
    pale, or too dark, to be read on one of them. What stands on a ground of its own keeps its colour."""
    fill = re.search(FILL, f"fill:{element.get('fill', '')};{element.get('style', '')}")
    if fill and fill[1].lower() not in ON_GROUND:
        style = re.sub(FILL, "", element.get("style", "")).strip("; ")
        mixed = f"fill:color-mix(in srgb, {fill[1]} {HUE_PCT}%, var(--ink))"
        element.set("fill", fill[1])  # where a browser cannot mix
        element.set("style", "; ".join(filter(None, [style, mixed])))


FILL = re.compile(r"\bfill:\s*(#[0-9a-fA-F]{6})\b")
ON_GROUND = ("#fdfdfd", "#111111")  # of words on a role's colour, as in `analysis.figures.plots`; a test compares them
HUE_PCT = 55


def _is_inside(reference: str) -> bool:
    """Does a reference stay in the file? A part of the drawing, or a picture that is embedded."""
    return re.match(r"\s*(#|data:image/(png|jpeg|gif|webp)[;,])", reference) is not None


def _loads(value: str) -> bool:
    return (
        any(not _is_inside(inside.strip("'\" ")) for inside in re.findall(r"url\(([^)]*)", value)) or "@import" in value
    )
