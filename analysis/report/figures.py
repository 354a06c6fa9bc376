"""SVG figures as parts of a page: made safe to inline, with their text alternative.

`analysis.figures` draws text and axes in `currentColor`, so that an inline figure follows the page from light to dark.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from analysis.tables.files import read_regular

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
HREFS = ("href", f"{{{XLINK}}}href")
WORDS = re.compile("aria-.*|data-.*|class|d|points")  # attributes that are never read as a style
PX_PER = {"pt": 4 / 3, "px": 1.0, "": 1.0, "in": 96.0}

# What a drawing needs. Anything else, scripts and foreign content among it, is left out with all that it holds.
_DRAWING = (
    "svg g defs use symbol path rect circle ellipse line polyline polygon text tspan textPath image clipPath "
    "pattern marker linearGradient radialGradient stop"
)
DRAWING = frozenset(_DRAWING.split())
# Functions in the value of an attribute that load nothing; `url` does, unless it leads into the drawing.
_FUNCTIONS = "url rgb rgba hsl hsla color-mix calc var matrix translate scale rotate skewx skewy"
FUNCTIONS = frozenset(_FUNCTIONS.split())

MOST_BYTES = 8_000_000  # of a file that is read
MOST_DRAWN = 100_000  # elements, what they refer to counted each time; a browser takes seconds for so many
NO_TEXT = "This figure was saved without a description of what it shows."


class FigureError(ValueError):
    """A file that is not an SVG drawing."""


@dataclass(frozen=True)
class Figure:
    """A drawing as markup for a page, with its description, title and width."""

    name: str
    title: str
    alt: str
    svg: Markup
    width_px: float | None


def read_figure(path: Path, *, prefix: str) -> Figure:
    """The drawing in an SVG file; `prefix` makes its ids different from those of other drawings on the page.

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
    by_id = {element.get("id"): element for element in reversed(list(root.iter()))}  # a browser takes the first
    if _drawn(root, by_id, {}) > MOST_DRAWN:
        raise FigureError(f"{name} draws more than {MOST_DRAWN:,} elements")
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
        if name.lower().startswith("on") or (name[0] == "{" and name not in HREFS):
            del element.attrib[name]
        elif name in HREFS:
            if (reference := _inside(element, value)) is None:
                del element.attrib[name]
            else:
                element.set(name, re.sub("^#", f"#{prefix}-", reference))
        elif name == "id":
            element.set(name, f"{prefix}-{value}")
        elif not WORDS.fullmatch(name) and _loads(value):
            del element.attrib[name]
        else:
            element.set(name, re.sub(r"url\(\s*(['\"]?)#", rf"url(\1#{prefix}-", value, flags=re.IGNORECASE))
    if _local(element) in ("text", "tspan"):
        _mix_words(element)
    for child in list(element):
        if _local(child) in DRAWING and child.tag in (_local(child), f"{{{SVG}}}{_local(child)}"):
            _clean(child, prefix)
        else:
            element.remove(child)


def _drawn(element: ET.Element, by_id: Mapping[str | None, ET.Element], known: dict[ET.Element, int]) -> int:
    """How many elements a browser draws for a clean one: itself, those in it, and twice those that it refers to, since
    references to references take a browser longer than as many elements."""
    if element not in known:
        known[element] = 0  # what leads back to itself is not drawn
        texts = " ".join(f"url({value})" if name in HREFS else value for name, value in element.attrib.items())
        targets = (by_id.get(id) for id in re.findall(r"url\(\s*['\"]?#([^'\")\s]+)", texts, re.IGNORECASE))
        known[element] = 1 + sum(_drawn(child, by_id, known) for child in element)
        known[element] += sum(2 * _drawn(target, by_id, known) for target in targets if target is not None)
    return known[element]


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


def _inside(element: ET.Element, reference: str) -> str | None:
    """A reference if it stays in the file: a part of the drawing or, of an image, a picture that is embedded."""
    pattern = r"data:image/(png|jpeg|gif|webp)[;,]" if _local(element) == "image" else "#"
    return reference.strip() if re.match(pattern, reference.strip()) else None


def _loads(value: str) -> bool:
    """Whether the value of an attribute, read as a style, may load something: CSS may write the same in many ways, so
    only what is known to load nothing is let through."""
    functions = re.findall(r"([\w-]*)\(", value.lower())
    leads_out = re.search(r"url\((?!\s*['\"]?#)", value, re.IGNORECASE)
    return "\\" in value or "@" in value or bool(leads_out) or not FUNCTIONS.issuperset(filter(None, functions))
