"""The style of all figures: colours, axes, legends, and how they are saved.

A function that draws returns a description of its figure, whose first sentence is a title: the `alt` of `save`. Text,
axes and lines are drawn in INK, which becomes `currentColor` in the file: in a page they have its text colour, light or
dark; alone, a grey that is readable on both. Backgrounds are transparent.
"""

from __future__ import annotations

import functools
import io
import re
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from analysis.tables.files import write_atomic
from analysis.tables.formats import display_name, listed
from analysis.tables.quantities import quantity

INK = "#757575"  # 4.6 to 1 on white, 4.1 to 1 on #111
# One colour per role in all figures. Source: okabe2008, and a neutral for what is small; all keep 3 to 1 on white and
# on #111, and differ from each other for every common colour vision.
ROLES = {"trunk": "#0072B2", "mask": "#D55E00", "shortcut": "#8A8A8A"}
# Words on a role's colour, 4.5 to 1 or more on it, whatever the page.
ON_ROLE = {"trunk": "#fdfdfd", "mask": "#111111", "shortcut": "#111111"}
# One colour and marker per network in all figures; a network of CIFAR shares those of its namesake.
NETWORKS = {
    "attention56": ("#853DD5", "o"),
    "attention92": ("#A37CEE", "D"),
    "resnet50": ("#2EA395", "s"),
    "resnet56": ("#2EA395", "s"),
    "resnet74": ("#17717A", "^"),
    "resnet80": ("#17717A", "^"),
    "resnet101": ("#5B7DB1", "<"),
    "resnet110": ("#B58225", "v"),
    "resnet152": ("#8A5A50", "P"),
    "resnet164": ("#5B7DB1", "<"),
    "resnet200": ("#7A7A2E", "X"),
}
STYLE: Any = {
    "font.size": 9, "axes.titlesize": 10, "axes.labelsize": 9, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5, "font.family": ["DejaVu Sans"], "text.color": INK, "axes.edgecolor": INK,
    "axes.labelcolor": INK, "axes.titlecolor": INK, "xtick.color": INK, "ytick.color": INK, "grid.color": INK,
    "grid.alpha": 0.22, "grid.linewidth": 0.6, "axes.linewidth": 0.7, "xtick.major.width": 0.7,
    "ytick.major.width": 0.7, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "axes.titlelocation": "left", "axes.titlepad": 8, "legend.frameon": False, "legend.handlelength": 1.4,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none", "savefig.edgecolor": "none",
    "svg.hashsalt": "resattn", "svg.fonttype": "none", "path.simplify": False,
}  # fmt: skip
WIDTH_IN = 9.0
P = ParamSpec("P")
R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """The function with our style during the call; the style of the session does not change."""

    @functools.wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return styled


@styled
def figure(height_in: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, np.ndarray]:
    """A figure that is shown only once, and its axes, shape (rows, columns). `options`: of `Figure.subplots`."""
    fig = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    return fig, fig.subplots(rows, columns, squeeze=False, **options)


def axis_label(id: str) -> str:
    """Label and unit of a quantity for an axis."""
    q = quantity(id)
    return q.label if q.unit in ("", q.label.lower()) else f"{q.label} ({q.unit})"


def scaled_label(id: str, most: float) -> tuple[float, str]:
    """The factor by which large values are divided, and the axis label that says so."""
    for scale, prefix in ((1e9, "G"), (1e6, "M")):
        if most >= scale:
            return scale, f"{quantity(id).label} ({prefix})"
    return 1.0, axis_label(id)


def percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %" if share >= 1e-4 else "under 0.01 %"


def apart(values: Sequence[float], gap: float) -> list[float]:
    """The values moved as little as possible so that any two are at least `gap` apart."""
    order = np.argsort(values)
    placed = np.asarray(values, dtype=float)
    for _ in range(100):
        for a, b in pairwise(order):
            if (short := gap - (placed[b] - placed[a])) > 1e-12:
                placed[a] -= short / 2
                placed[b] += short / 2
    return [float(v) for v in placed]


def network_style(network: str) -> tuple[str, str]:
    """Colour and marker of a network, the same in all figures; a network without its own gets one by its name."""
    base = network.partition("[")[0].removeprefix("cifar-").removesuffix("-basic")
    if base in NETWORKS:
        return NETWORKS[base]
    styles = list(NETWORKS.values())
    return styles[zlib.crc32(base.encode()) % len(styles)]


def network_styles(networks: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each network of a study, all different: variants of one network differ too.

    The same networks get the same styles in any order, hence in all figures of a study.
    """
    chosen: dict[str, tuple[str, str]] = {}
    for network in sorted(set(networks), key=lambda name: (name.count(","), "[" in name, name)):
        wanted = network_style(network)
        free = [style for style in NETWORKS.values() if style not in chosen.values()]
        chosen[network] = wanted if wanted not in chosen.values() or not free else free[0]
    return chosen


@styled
def role_legend(fig: Figure, roles: Sequence[str] = tuple(ROLES)) -> None:
    """The colours of the roles, once for all panels of a figure."""
    handles = [Rectangle((0, 0), 1, 1, color=ROLES[role], lw=0) for role in roles]
    fig.legend(handles, roles, loc="outside upper left", ncol=len(roles))


@styled
def network_legend(fig: Figure, networks: Sequence[str], title: str) -> None:
    """The colours and markers of the networks, once for all panels of a figure, under a title."""
    handles = []
    styles, labels = network_styles(networks), [display_name(n) for n in networks]
    widths_in = [0.5 + 0.065 * len(label) for label in labels]
    columns = 4 if sum(widths_in) < WIDTH_IN else int(WIDTH_IN / max(widths_in))
    for network in networks:
        colour, marker = styles[network]
        handles.append(Line2D([], [], color=colour, marker=marker, ms=8, mfc="none", mew=1.8, lw=0))
    legend = fig.legend(
        handles, labels, loc="outside upper left", ncol=max(min(len(networks), 4, columns), 1), title=title,
        alignment="left", title_fontsize=10,
    )  # fmt: skip
    legend.get_title().set_color(INK)


# -- saving


@dataclass(frozen=True)
class Drawing:
    """A saved figure; a notebook shows the content of its file, in the notebook's text colour."""

    path: Path
    alt: str
    svg: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.svg, "text/plain": self.alt}


FIRST_SENTENCE = re.compile(r"(?<=[.!?]) ")


def joint_title(sentences: Sequence[str]) -> str:
    """One sentence for several panels: their common words once, and in the middle what differs.

    Sentences with little in common are put one after the other.
    """
    rows = [sentence.rstrip(".").split() for sentence in dict.fromkeys(sentences)]
    if len(rows) == 1:
        return sentences[0]
    shortest = min(map(len, rows))
    head = next((k for k in range(shortest) if len({row[k] for row in rows}) > 1), shortest - 1)
    room = shortest - head - 1  # a word at least is each one's own
    tail = next((k for k in range(room) if len({row[-1 - k] for row in rows}) > 1), room)
    middles = [" ".join(row[head : len(row) - tail]) for row in rows]
    if head + tail < 3 or max(map(len, middles)) > 40:
        return " ".join(dict.fromkeys(sentences))
    comma = "," if middles[0].endswith(",") else ""
    middle = listed(middle.removesuffix(",") for middle in middles) + comma
    return " ".join(filter(None, [*rows[0][:head], middle, *rows[0][len(rows[0]) - tail :]])) + "."


SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
FONTS = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'


@styled
def save(fig: Figure, path: Path | str, *, alt: str | Sequence[str]) -> Drawing:
    """Writes a figure as SVG, in one step; the same figure gives the same bytes.

    `alt`: a description of the figure, for readers who do not see it; for several panels, one for each. Its first
    sentence becomes the title; first sentences of several panels are joined. Text stays text, in the reader's own font;
    ids begin with the file's name, so that many figures can be in one page.
    """
    leads = [FIRST_SENTENCE.split(words, maxsplit=1)[0] for words in ([alt] if isinstance(alt, str) else alt)]
    alt = alt if isinstance(alt, str) else " ".join(alt)
    path = Path(path)
    for ax in fig.axes:  # a grid may have more places than panels
        if not (ax.has_data() or ax.get_title() or ax.get_xlabel()):
            ax.remove()
    buffer = io.BytesIO()
    fig.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = ET.fromstring(buffer.getvalue().decode().replace(INK, "currentColor"))
    _tidy(root, path.stem)
    title, desc = ET.Element(f"{{{SVG}}}title"), ET.Element(f"{{{SVG}}}desc")
    title.set("id", f"{path.stem}-title")
    desc.set("id", f"{path.stem}-desc")
    title.text, desc.text = joint_title(leads), alt
    root.insert(0, title)
    root.insert(1, desc)
    inline = _text(root)
    style = ET.Element(f"{{{SVG}}}style")
    style.text = f"svg{{color:{INK}}}"  # for a file that stands alone; an inline figure takes the page's
    root.insert(2, style)
    write_atomic(path, '<?xml version="1.0" encoding="utf-8"?>\n' + _text(root) + "\n")
    return Drawing(path, alt, inline)


def _tidy(root: ET.Element, prefix: str) -> None:
    """Strip what only matplotlib reads, keep its rules to this drawing, and make the rest safe to share a page."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)
    values = [value for element in root.iter() for value in element.attrib.values()]
    used = {
        target for value in values for target in re.findall(r"^#(.+)$", value) + re.findall(r"url\(#(.+?)\)", value)
    }
    for element in root.iter():
        for name, value in list(element.attrib.items()):
            if name == "id":
                if value in used:
                    element.set(name, f"{prefix}-{value}")
                else:
                    del element.attrib[name]
            elif name in ("href", f"{{{XLINK}}}href") and value.startswith("#"):
                element.set(name, f"#{prefix}-{value[1:]}")
            elif "url(#" in value:
                element.set(name, value.replace("url(#", f"url(#{prefix}-"))
            elif name == "style" and "DejaVu" in value:
                element.set(name, re.sub(r"'DejaVu Sans'[^;]*", FONTS.replace('"', "'"), value))
    root.set("role", "img")
    root.set("aria-labelledby", f"{prefix}-title {prefix}-desc")
    root.set("style", "max-width:100%;height:auto;stroke-linejoin:round;stroke-linecap:butt")


def _text(root: ET.Element) -> str:
    ET.register_namespace("", SVG)
    ET.register_namespace("xlink", XLINK)
    return ET.tostring(root, encoding="unicode")
