"""Which drawings the opening page shows, and where: numbered ones in the article, the others in the appendix."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from analysis.report.article import Chapter, Plate
from analysis.report.facts.subject import SUBJECT
from analysis.report.figures import Figure, FigureError, read_figure
from analysis.report.gaps import Gap
from analysis.report.reading import ALTERED, DONE, Job, Study
from analysis.tables import steps
from analysis.tables.formats import anchor, display_name

FIGURE_BYTES = 400_000  # of one drawing on the opening page
INDEX_BYTES = 2_000_000  # of all of them
OPEN_FIGURES = 6  # of one section; further ones are folded away
TEXT_WIDTH_PX = 672
CAPTION = 170  # characters
DETAILS = ("heat_stage",)  # figures that stand on the pages of their notebooks alone


@dataclass(frozen=True)
class Section:
    """A section of the appendix: id and title, the steps whose figures it shows, and how the first names start."""

    id: str
    title: str = ""  # without one it is a part of the section that follows
    steps: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()  # steps whose tables alone it shows


SECTIONS = (
    Section("variants", "", (steps.VARIANTS,)),
    Section("depth", "Depth", (steps.DEPTH,), ("depth", "stages", "modules", "path", "used_depth")),
    Section("cost", "Cost", (steps.COST,)),
    Section("field", "Receptive field", (steps.RECEPTIVE_FIELD,), ("over_image", "by_stage", "gradient")),
    Section("training", "Training", (steps.COMPARE, steps.PROTOCOL), ("error", "differences"), (steps.TRAIN,)),
    Section(
        "masks", "Masks", (steps.MASKS, steps.RESPONSE),
        ("interventions", "heat_mean", "scores_auc", "channels", "used_depth", "responses", "scores"),
        (steps.TRAIN_DIGITS,),
    ),
    Section("claims", "Claims", (steps.CLAIMS, steps.LAYOUTS)),
    Section("made", "How this was made"),
    Section("notebooks", "Notebooks"),
)  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """A figure with its place on the page; `plate` and `number` if it belongs to the article."""

    figure: Figure
    anchor: str
    plate: Plate | None = None
    number: int = 0

    @property
    def caption(self) -> str:
        """The title, or the part of its first sentence that fits. The rest is in the description."""
        whole = self.figure.title or self.figure.alt
        if len(whole) <= CAPTION:
            return whole
        first = re.split(r"(?<=[.!?]) ", whole, maxsplit=1)[0]
        return first if len(first) <= CAPTION else first[:CAPTION].rpartition(" ")[0] + "\N{HORIZONTAL ELLIPSIS}"

    @property
    def is_wide(self) -> bool:
        return (self.figure.width_px or 0) > TEXT_WIDTH_PX


@dataclass(frozen=True)
class Gallery:
    """The figures of a section: shown ones, folded ones, and files that are not drawings."""

    figures: tuple[Drawn, ...] = ()
    more: tuple[Drawn, ...] = ()
    lost: tuple[Gap, ...] = field(default=())


@dataclass(frozen=True)
class Drawings:
    """The figures of the article by chapter, and of the appendix by section."""

    plates: dict[str, tuple[Drawn, ...]]
    galleries: dict[str, Gallery]

    @property
    def numbers(self) -> dict[str, int]:
        """Id of a figure of the article -> its number."""
        return {d.plate.id: d.number for drawn in self.plates.values() for d in drawn if d.plate}


def drawings(study: Study, chapters: Iterable[Chapter], first_number: int) -> Drawings:
    """Every figure of a study once. The article's come first, so that they are within the page's size limit."""
    left, number = INDEX_BYTES, first_number
    plates: dict[str, tuple[Drawn, ...]] = {}
    taken: set[Path] = set()
    for chapter in chapters:
        own = []
        for plate in chapter.plates:
            job, path = _of_plate(study, plate)
            if path is None or job is None or path in taken:
                continue
            drawn = _drawn(job, path, left)
            if isinstance(drawn, Drawn):
                taken.add(path)
                left -= len(drawn.figure.svg)
                own.append(Drawn(drawn.figure, f"fig-{plate.id}", plate, number))
                number += 1
        plates[chapter.id] = tuple(own)
    galleries: dict[str, Gallery] = {}
    for section in SECTIONS:
        found = [
            _drawn(job, path, left, study.remedy)
            for job, path in _figures(study, section.steps, section.first) if path not in taken
        ]  # fmt: skip
        shown: list[Drawn] = []
        lost: list[Gap] = []
        for one in found:
            if isinstance(one, Gap):
                lost.append(one)
            elif (weight := len(one.figure.svg)) > left:
                lost.append(_heavy(one.figure.name + ".svg", one.anchor, weight))
            else:
                left -= weight
                shown.append(one)
        n_open = min(OPEN_FIGURES, sum(not _is_of_another(d.figure.name) for d in shown) or OPEN_FIGURES)
        galleries[section.id] = Gallery(tuple(shown[:n_open]), tuple(shown[n_open:]), tuple(lost))
    return Drawings(plates, galleries)


def _of_plate(study: Study, plate: Plate) -> tuple[Job | None, Path | None]:
    files = [(job, path) for job in study.of(plate.step) for path in job.figures]
    for stem in plate.stems:
        if found := next(((job, path) for job, path in files if path.stem == stem), None):
            return found
    return None, None


def _heavy(name: str, job: str, weight: int) -> Gap:
    return Gap(f"{name} is too large for this page ({weight // 1000} kB).", f"It is in {job}/figures.", job)


def _drawn(job: Job, path: Path, left: int, remedy: str = "") -> Drawn | Gap:
    place = f"figure-{anchor(job.name)}-{anchor(path.stem)}"
    try:
        if job.state in (DONE, ALTERED) and (altered := job.problem(f"figures/{path.name}")):
            raise FigureError(f"{path.name}: {altered}")
        drawing = read_figure(path, prefix=place)
    except FigureError as error:
        return Gap(f"A figure of {job.name} cannot be shown: {error}.", f"`{remedy}` makes it again.", job.name)
    if (weight := len(drawing.svg)) > min(FIGURE_BYTES, left):
        return _heavy(path.name, job.name, weight)
    return Drawn(drawing, place)


def _figures(study: Study, order: Sequence[str], first: Sequence[str]) -> list[tuple[Job, Path]]:
    """The figures of some steps: those about the page's subject or about many networks before those about another."""

    def rank(figure: tuple[Job, Path]) -> tuple[object, ...]:
        job, path = figure
        place = next((k for k, start in enumerate(first) if path.stem.startswith(start)), len(first))
        return _is_of_another(path.stem), order.index(job.step), place, path.name

    figures = ((job, path) for step in order for job in study.of(step) for path in job.figures)
    return sorted((figure for figure in figures if not figure[1].stem.startswith(DETAILS)), key=rank)


def _is_of_another(stem: str) -> bool:
    """Is a figure about one network, as `by_stage_attention92` is, and not the page's subject?"""
    network = stem.rpartition("_")[2]
    return network != SUBJECT and display_name(network) != network
