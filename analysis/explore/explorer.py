"""The explorer as notebook widgets: sliders for the settings of a network, with its counts beside them.

Every number is counted: each network is captured once on meta tensors and kept. Drawing and counts are shown first,
then the receptive field and the ResNet of equal depth, which take longer.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from typing import Any

import ipywidgets as widgets
import pandas as pd

from analysis.figures.network import network_sketch
from analysis.figures.path_lengths import Paths, path_sketch
from analysis.figures.receptive_field import receptive_field_sketch
from analysis.tables import schemas
from analysis.tables.formats import display_name
from analysis.tables.layers import layer_frame
from analysis.tables.receptive_field import receptive_frame
from resattn.compare.matching import Match, MatchError, match
from resattn.measures.captured import captured
from resattn.measures.quantities import QUANTITIES, count
from resattn.networks.catalog import named
from resattn.networks.spec import NetworkSpec, SpecError, override

# Layouts that the explorer starts from, and the input sides that suit each.
LAYOUTS: Mapping[str, tuple[int, ...]] = {
    "attention56": (128, 160, 192, 224, 288, 320),
    "cifar-attention56": (32, 48, 64),
}
# Least and most of each number. A network of some hundred layers is drawn in time; `resattn audit` takes any.
RANGES = {"p": (0, 2), "t": (1, 3), "r": (1, 2), "modules": (0, 3), "poolings": (0, 4)}
WIDTHS = (8, 16, 32, 64, 96)
PRESETS = ("attention56", "attention92", "cifar-attention56", "cifar-attention92")
WORDS = {"p": "p, units before and after", "t": "t, units of the trunk", "r": "r, units between poolings"}
STAGES = 3  # with modules, in every layout
BY = {"longest path": "longest_path", "trunk depth": "trunk_depth", "all weighted layers": "weighted_layers"}
TARGET_S = 0.5  # from a change to the drawing and the numbers that follow from it


@dataclass(frozen=True)
class State:
    """The values of the controls. `modules` and `poolings`: of the first three stages."""

    network: str = "attention56"
    p: int = 1
    t: int = 2
    r: int = 1
    modules: tuple[int, ...] = (1, 1, 1)
    poolings: tuple[int, ...] = (3, 2, 1)
    width: int = 64
    merge: str = "residual"
    gate: str = "mixed"
    input_px: int = 224
    by: str = "longest_path"

    @classmethod
    def of(cls, network: str) -> State:
        """The state that shows a layout or a preset of the catalog unchanged. Raises: SpecError."""
        spec = named(network)
        if network not in (*LAYOUTS, *PRESETS):
            raise SpecError(f"the explorer has no layout {network!r} (one of: {', '.join(LAYOUTS)})")
        return cls(
            network="cifar-attention56" if spec.stem == "cifar" else "attention56",
            p=spec.p, t=spec.t, r=spec.r, modules=spec.modules[:STAGES],
            poolings=spec.poolings[:STAGES], width=int(spec.width), merge=spec.merge, gate=spec.gate,
            input_px=spec.input_shape[-1],
        )  # fmt: skip

    @property
    def spec(self) -> NetworkSpec:
        """The spec of this state. Raises: SpecError, in one line, if the numbers describe no network."""
        base = named(self.network)
        rest = len(base.units) - STAGES
        wanted: dict[str, Any] = {
            "p": self.p, "t": self.t, "r": self.r, "modules": (*self.modules, *base.modules[-rest:][:rest]),
            "poolings": (*self.poolings, *base.poolings[-rest:][:rest]), "width": self.width, "merge": self.merge,
            "gate": self.gate, "input_shape": (base.input_shape[0], self.input_px, self.input_px),
        }  # fmt: skip
        return override(base, {name: value for name, value in wanted.items() if value != getattr(base, name)})


@dataclass(frozen=True)
class Counted:
    """The counts of one capture: layers, paths and numbers."""

    layers: pd.DataFrame
    paths: Paths
    numbers: Mapping[str, int]

    @property
    def mask_share(self) -> float:
        return self.numbers["macs_mask"] / self.numbers["macs"]


NUMBERS = ("trunk_depth", "longest_path", "weighted_layers", "params", "macs", "n_paths", "macs_mask")


@lru_cache(maxsize=256)
def counted(spec: NetworkSpec) -> Counted:
    """Layers, path lengths, depths and costs of a network."""
    layers = layer_frame(spec)
    lengths = path_lengths(spec)
    numbers = {q: count(captured(spec), q) for q in NUMBERS}
    return Counted(layers, lengths, numbers)


@lru_cache(maxsize=256)
def path_lengths(spec: NetworkSpec) -> Paths:
    """The number of paths for each number of weighted layers."""
    return Paths(spec.name, captured(spec).path_lengths)


@lru_cache(maxsize=256)
def sight(spec: NetworkSpec) -> Mapping[str, Mapping[str, int]]:
    """stage -> branch ("trunk", "mask") -> side in px of the receptive field at the stage's end, not clipped."""
    seen: dict[str, dict[str, int]] = {}
    for row in receptive_frame([spec]).itertuples():
        seen.setdefault(str(row.stage), {})[str(row.branch)] = int(row.value)
    return seen


@lru_cache(maxsize=256)
def equal(spec: NetworkSpec, by: str) -> Match:
    """The ResNet of equal depth. Raises: MatchError."""
    return match(spec, by)


# -- in words


def headline(found: Counted) -> str:
    """One sentence: the depth in the name and the counted one."""
    n = found.numbers
    more = 100 * (n["longest_path"] / n["trunk_depth"] - 1)
    if n["longest_path"] == n["trunk_depth"]:
        return f"<b>Named {n['trunk_depth']}, and so it is:</b> no path is longer than the trunk."
    return (
        f"<b>Named {n['trunk_depth']}, really {n['longest_path']}.</b> The longest path passes through the masks and "
        f"is {more:.0f} % longer than the trunk; the masks take {100 * found.mask_share:.0f} % of the multiply-adds."
    )


ROWS = ("trunk_depth", "longest_path", "weighted_layers", "n_paths", "params", "macs", "macs_mask")


def table(found: Counted, before: Counted | None = None) -> str:
    """Depth and cost with label and definition of each number, and the change since the last state."""
    rows = "".join(
        f'<tr title="{escape(QUANTITIES[q].definition)}"><th scope="row" style="text-align:left;font-weight:400;'
        f'padding:2px 16px 2px 0">{escape(QUANTITIES[q].label)}</th><td data-quantity="{q}" style="text-align:right;'
        f'font-variant-numeric:tabular-nums">{found.numbers[q]:,}</td>'
        f'<td style="text-align:right;padding-left:16px">'
        f"{_change(found.numbers[q], before.numbers[q] if before else None)}</td></tr>"
        for q in ROWS
    )
    return f'<table style="border-collapse:collapse;line-height:1.35">{rows}</table>'


def _change(now: int, before: int | None) -> str:
    return "" if before is None or now == before else f"{now - before:+,}".replace("-", "\N{MINUS SIGN}")


def match_words(found: Match) -> str:
    """The ResNet, and how close it is to the number."""
    how = "exactly" if found.is_exact else f"as near as its layout allows ({found.off_pct:+.1f} %)"
    notion = next(words for words, by in BY.items() if by == found.by)
    return f"By {notion} it equals <b>{escape(display_name(found.spec.name))}</b>, {how}: {found.found:,} layers."


# -- the widgets


class Explorer:
    """The controls and the output. `show` displays them.

    `drawn_s`: response times until drawing and numbers are shown; `whole_s`: until everything is.
    """

    def __init__(self, network: str = "attention56", **changes: Any) -> None:
        self.drawn_s: list[float] = []
        self.whole_s: list[float] = []
        self.start = State(**{**vars(State.of(network)), **changes})
        self.is_setting = False
        self.before: Counted | None = None
        self.shown: Counted | None = None
        self.controls = _controls(self.start)
        self.panels = {name: widgets.HTML() for name in ("headline", "drawing", "table", "paths", "sight", "match")}
        self.message = widgets.HTML()
        self.message.add_class("resattn-message")
        self.panels["table"].add_class("resattn-table")
        for name, control in self.controls.items():
            control.observe(self._switch if name == "network" else self._changed, names="value")
        gc.freeze()  # what is imported by now stays; walking through it takes longer than an answer may
        self.update()

    @property
    def state(self) -> State:
        values = {name: control.value for name, control in self.controls.items()}
        stages = {name: tuple(values.pop(f"{name}{k + 1}") for k in range(STAGES)) for name in ("modules", "poolings")}
        return State(**{**values, **stages})

    def update(self) -> None:
        """Shows the state of the controls. If it describes no network, a message says so and the last network stays."""
        begun = time.perf_counter()
        state = self.state
        try:
            spec = state.spec
            first = counted(spec)
        except SpecError as error:
            self._say(str(error), is_wrong=True)
            return
        self.panels["headline"].value = headline(first)
        self.panels["drawing"].value = network_sketch(first.layers)
        if first is not self.shown:
            self.before, self.shown = self.shown, first
        self.panels["table"].value = table(first, self.before)
        self.drawn_s.append(time.perf_counter() - begun)
        try:
            found = equal(spec, state.by)
            self.panels["match"].value = match_words(found)
            self.panels["paths"].value = path_sketch([first.paths, path_lengths(found.spec)])
        except (MatchError, SpecError) as error:
            self.panels["match"].value = escape(str(error))
            self.panels["paths"].value = path_sketch([first.paths])
        self.panels["sight"].value = receptive_field_sketch(sight(spec), state.input_px)
        self.whole_s.append(time.perf_counter() - begun)
        self._say(f"{display_name(spec.name)}: drawn in {self.drawn_s[-1]:.2f} s, all in {self.whole_s[-1]:.2f} s")

    def frame(self) -> pd.DataFrame:
        """The numbers now shown: `schemas.STATE`. Raises: SpecError."""
        spec = self.state.spec
        rows = [(spec.name, q, counted(spec).numbers[q], QUANTITIES[q].unit) for q in ROWS]
        return pd.DataFrame(rows, columns=schemas.STATE.names)

    def show(self) -> widgets.VBox:
        """Everything as one widget."""
        presets = [self._button(display_name(name), State.of(name)) for name in PRESETS]
        buttons = widgets.HBox([*presets, self._button("Reset", self.start)])
        buttons.layout.flex_flow = "row wrap"
        controls = widgets.VBox([*self.controls.values(), self.message])
        controls.layout.flex = "0 1 380px"
        lower = widgets.HBox([self.panels[name] for name in ("table", "sight")])
        lower.layout.flex_flow = "row wrap"
        self.panels["table"].layout.margin = "0 24px 0 0"
        picture = widgets.VBox(
            [*(self.panels[n] for n in ("headline", "drawing")), lower, self.panels["match"], self.panels["paths"]]
        )
        picture.layout.flex = "1 1 480px"
        both = widgets.HBox([controls, picture])
        both.layout.flex_flow = "row wrap"  # beside each other where there is room
        return widgets.VBox([buttons, both])

    def _button(self, words: str, state: State) -> widgets.Button:
        button = widgets.Button(description=words)
        button.layout.width = "auto"
        button.on_click(lambda _: self.set(state))
        return button

    def set(self, state: State) -> None:
        """Sets the controls to a state and shows it."""
        self.is_setting = True
        try:
            self.controls["network"].value = state.network
            self.controls["input_px"].options = LAYOUTS[state.network]
            for name in ("p", "t", "r", "width", "merge", "gate", "input_px", "by"):
                self.controls[name].value = getattr(state, name)
            for name in ("modules", "poolings"):
                for k, value in enumerate(getattr(state, name)):
                    self.controls[f"{name}{k + 1}"].value = value
        finally:
            self.is_setting = False
        self.update()

    def _changed(self, _: Any) -> None:
        if not self.is_setting:
            self.update()

    def _switch(self, _: Any) -> None:
        """Another layout brings its own numbers."""
        if not self.is_setting:
            self.set(State.of(self.controls["network"].value))

    def _say(self, words: str, *, is_wrong: bool = False) -> None:
        style = "border-left:3px solid #D55E00;padding-left:8px" if is_wrong else "opacity:0.8"
        role = "alert" if is_wrong else "status"
        self.message.value = f'<div role="{role}" style="{style}">{escape(" ".join(words.split()))}</div>'


def _controls(state: State) -> dict[str, Any]:
    def slider(name: str, words: str, value: int) -> widgets.IntSlider:
        low, high = RANGES[name]
        made = widgets.IntSlider(value, low, high, description=words, continuous_update=False)
        made.layout.width, made.style.description_width = "370px", "170px"
        return made

    def choice(words: str, options: Any, value: Any) -> widgets.Dropdown:
        made = widgets.Dropdown(options=options, value=value, description=words)
        made.layout.width, made.style.description_width = "370px", "170px"
        return made

    fields = NetworkSpec.__dataclass_fields__
    layouts = [(display_name(name), name) for name in LAYOUTS]
    controls: dict[str, Any] = {
        "network": choice("layout", layouts, state.network),
        "input_px": choice("input, px", LAYOUTS[state.network], state.input_px),
        "width": choice("width", WIDTHS, state.width),
        "merge": choice("merge", fields["merge"].metadata["choices"], state.merge),
        "gate": choice("gate", fields["gate"].metadata["choices"], state.gate),
        "by": choice("ResNet by", list(BY.items()), state.by),
        **{name: slider(name, words, getattr(state, name)) for name, words in WORDS.items()},
    }
    for name in ("modules", "poolings"):
        for k, value in enumerate(getattr(state, name)):
            controls[f"{name}{k + 1}"] = slider(name, f"{name} of stage {k + 1}", value)
    return controls
