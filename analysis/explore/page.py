"""The explorer as a part of a page: sliders that draw and count a network in the browser, without Python.

`block()` gives the HTML, its style and its scripts. Report and site receive it as an argument; it loads nothing.
"""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image

from analysis.tables.formats import display_name
from resattn.measures.quantities import QUANTITIES
from resattn.networks.catalog import named
from resattn.networks.spec import NetworkSpec

HERE = Path(__file__).parent
COUNT, PAGE, STYLE = HERE / "count.js", HERE / "page.js", HERE / "page.css"

SHOWN = (
    "trunk_depth", "longest_path", "weighted_layers", "n_paths", "mean_path_length", "params", "macs", "macs_mask",
    "receptive_field_px", "receptive_field_trunk_px",
)  # fmt: skip
STAGES = 3  # with modules, in both layouts
SLIDERS = {
    "p": ("p, units before and after", 0, 3),
    "t": ("t, units of the trunk", 1, 4),
    "r": ("r, units between poolings", 1, 3),
    "modules": ("modules of each stage", 0, 6),
    "poolings": ("poolings, first mask", 0, 4),
}
PRESETS = ("attention56", "attention92", "cifar-attention56", "cifar-attention92", "cifar-attention452")
PHOTO, PHOTO_PX = "china.jpg", 280


@dataclass(frozen=True)
class Block:
    """The HTML of the explorer, to be inserted unchanged; a page contains `style` and `scripts` once."""

    html: str
    style: str
    scripts: tuple[str, ...]

    @property
    def whole(self) -> str:
        """Style, HTML and scripts, in this order."""
        scripts = "".join(f"<script>{script}</script>" for script in self.scripts)
        return f"<style>{self.style}</style>\n{self.html}\n{scripts}"


@cache
def block() -> Block:
    """The explorer for a page."""
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        (HERE / "page.html.j2").read_text(encoding="utf-8")
    )
    presets: list[dict[str, Any]] = [{"name": display_name(name), "state": state(named(name))} for name in PRESETS]
    presets.append({"name": "Attention-56 without masks", "state": {**presets[0]["state"], "modules": [0] * STAGES}})
    data = {
        "bases": {name: base(named(name)) for name in ("attention56", "cifar-attention56")},
        "presets": presets,
        "ranges": {name: (low, high) for name, (_, low, high) in SLIDERS.items()},
        "quantities": [{"id": q, "label": QUANTITIES[q].label, "definition": QUANTITIES[q].definition} for q in SHOWN],
        "photo": photo(),
    }
    # A "<" could end the script; the rest is JSON of our own.
    text = json.dumps(data, ensure_ascii=True).replace("<", "\\u003c").replace("&", "\\u0026")
    sliders = [{"name": n, "words": words, "low": low, "high": high} for n, (words, low, high) in SLIDERS.items()]
    html = template.render(data=Markup(text), presets=presets, sliders=sliders)
    scripts = tuple(path.read_text(encoding="utf-8") for path in (COUNT, PAGE))
    return Block(html, STYLE.read_text(encoding="utf-8"), scripts)


def base(spec: NetworkSpec) -> dict[str, Any]:
    """The fields of a spec that no slider changes."""
    fields = ("name", "stem", "units", "tail", "modules", "poolings", "width", "merge", "classes")
    return {**{name: getattr(spec, name) for name in fields}, "input": spec.input_shape[-1]}


def state(spec: NetworkSpec) -> dict[str, Any]:
    """The values of the sliders for a named network."""
    numbers = {name: getattr(spec, name) for name in ("p", "t", "r")}
    stages = {name: getattr(spec, name)[:STAGES] for name in ("modules", "poolings")}
    return {"base": "cifar-attention56" if spec.stem == "cifar" else "attention56", **numbers, **stages}


def photo() -> str:
    """A photograph as a data URL, behind the squares of receptive fields."""
    # The file is scikit-learn's; importing that, and torch, would cost each study ten seconds.
    folder = Path(str(getattr(find_spec("sklearn"), "origin", None))).parent
    picture = Image.open(folder / "datasets" / "images" / PHOTO)
    side = min(picture.size)
    square = picture.crop((picture.width - side, 0, picture.width, side))
    image = square.resize((PHOTO_PX, PHOTO_PX), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=70)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
