"""From a study's folder to its report, whatever state the study is in. The folder of pages appears in one step."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.report import facts, words
from analysis.report.facts import Gap, Part, part
from analysis.report.figures import Figure, FigureError, read_figure
from analysis.report.notebooks import PAGE_BYTES, TEMPLATES, NotebookPageError, Pages, notebook_title
from analysis.report.reading import DONE, REPORT, Job, Study, read_study
from analysis.tables.files import write_atomic
from analysis.tables.names import display_name, listed, part_name

INDEX, PAGES = "index.html", "pages"
MAX_BYTES = 5_000_000  # of the whole folder
FIGURE_BYTES = 400_000  # of one drawing on the opening page
INDEX_BYTES = 2_000_000  # of all of them
OPEN_FIGURES = 6  # of one section; further ones are folded away
LOG_CHARACTERS = 40_000  # the end of a failed run's log

SECTIONS = (
    ("depth", "Depth"), ("cost", "Cost"), ("sight", "Receptive field"), ("training", "Training"), ("masks", "Masks"),
    ("claims", "Claims"), ("made", "How this was made"), ("notebooks", "Notebooks"),
)  # fmt: skip
# Which jobs' figures stand in which section of the page, and which come first there, by how their names begin.
DRAWN: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "variants": (("10_variants",), ()),
    "depth": (("20_depth",), ("depth", "stages", "modules", "path")),
    "cost": (("30_cost",), ()),
    "sight": (("40_receptive_field",), ("over_image", "by_stage", "gradient")),
    "training": (("60_compare",), ("error", "differences")),
    "masks": (("70_masks", "75_response"), ("scores_auc", "heat_mean", "responses", "scores")),
    "claims": (("80_claims", "85_which_network"), ()),
}
DETAILS = ("heat_stage",)  # figures that stand on the pages of their notebooks alone


class ReportError(RuntimeError):
    """A report that cannot be written; the message says where and what would do."""


@dataclass(frozen=True)
class Drawn:
    """A figure with its place on the page."""

    figure: Figure
    anchor: str

    @property
    def svg(self) -> Markup:
        return self.figure.svg

    @property
    def width_px(self) -> float | None:
        return self.figure.width_px

    @property
    def caption(self) -> str:
        return self.figure.title or self.figure.alt

    @property
    def is_wide(self) -> bool:
        return (self.figure.width_px or 0) > TEXT_WIDTH_PX


TEXT_WIDTH_PX = 672


@dataclass(frozen=True)
class Gallery:
    """The figures of a section: those shown, those folded away, and those that could not be."""

    figures: tuple[Drawn, ...] = ()
    more: tuple[Drawn, ...] = ()
    lost: tuple[Gap, ...] = field(default=())


def build_report(study_dir: Path | str) -> Path:
    """The `index.html` of a study's report, made anew from its tables.

    A study that is empty, half run or failed gives a report too: it says what is missing and how to get it.
    Raises: ReportError where there is no such folder, or its `report` is not ours to replace.
    """
    folder = Path(study_dir).resolve()
    if not folder.is_dir():
        raise ReportError(f"no folder {study_dir}; give one that `resattn study` made, such as results/quick")
    target = folder / REPORT
    if not _is_ours(target):
        raise ReportError(f"{target} holds something that no report wrote; move it away")
    beside = folder / f".{REPORT}.{secrets.token_hex(4)}.part"
    try:
        for name, page in _pages(read_study(folder)):
            write_atomic(beside / name, page)
        _swap(beside, target)
    except OSError as error:
        raise ReportError(f"{error.filename or target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return target / INDEX


def _is_ours(target: Path) -> bool:
    """Is there nothing, or an empty folder, or a report?"""
    if target.is_symlink() or target.is_file():
        return False
    return not target.exists() or (target / INDEX).is_file() or not any(target.iterdir())


def _swap(new: Path, target: Path) -> None:
    """Put a finished folder in the place of the old one, which stays until then, and comes back if that fails."""
    old = new.with_suffix(".old")
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


# --- the pages ------------------------------------------------------------------------------------------------------


def _pages(study: Study) -> Iterable[tuple[str, str]]:
    """Name in the folder and text of every page."""
    shown = [job for job in study.jobs if job.notebook or job.log]
    files = _file_names(job.name for job in shown)
    environment, notebooks = _environment(), Pages()
    index = _index(environment, study, {job.name: f"{PAGES}/{files[job.name]}" for job in shown})
    yield INDEX, index
    left = MAX_BYTES - len(index.encode()) - 100_000
    # Training runs last: they are many and alike, so where weight is short, it is they that lose their pictures.
    for job in sorted(shown, key=lambda job: ("train" in job.step, job.name)):
        body, problem = Markup(), ""
        if job.notebook:
            try:
                body = notebooks.body(job.notebook, budget=min(PAGE_BYTES, left))
            except NotebookPageError as error:
                problem = str(error)
        page = _notebook_page(environment, job, shown, files, body, problem)
        left -= len(page.encode())
        yield f"{PAGES}/{files[job.name]}", page


def _file_names(names: Iterable[str]) -> dict[str, str]:
    files: dict[str, str] = {}
    for name in names:
        stem = words.anchor(name)
        while f"{stem}.html" in files.values():
            stem += "-2"
        files[name] = f"{stem}.html"
    return files


def _notebook_page(
    environment: Environment, job: Job, shown: Sequence[Job], files: Mapping[str, str], body: Markup, problem: str
) -> str:
    place = [other.name for other in shown].index(job.name)
    link = {
        k: (shown[i].name, files[shown[i].name])
        for k, i in (("before", place - 1), ("after", place + 1))
        if 0 <= i < len(shown)
    }
    log = _log_tail(job) if job.state != DONE else ""
    return environment.get_template("notebook_page.html.j2").render(
        job=job, title=notebook_title(job.notebook) if body and job.notebook else None, body=body,
        problem=problem, log=log,
        before=link.get("before"), after=link.get("after"), script_source="'none'",
    )  # fmt: skip


def _log_tail(job: Job) -> str:
    if not job.log:
        return ""
    try:
        text = job.log.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return f"The log cannot be read: {error.strerror}"
    return text if len(text) <= LOG_CHARACTERS else "[its end]\n" + text[-LOG_CHARACTERS:]


def _index(environment: Environment, study: Study, pages: Mapping[str, str]) -> str:
    unwell: dict[str, list[str]] = {}
    for job in study.jobs:
        if job.state != DONE:
            unwell.setdefault(job.state, []).append(job.name)
    found = {
        name: part(getattr(facts, name), study) for name in ("depth", "cost", "sight", "training", "masks", "claims")
    }
    script = (TEMPLATES / "ledger.js").read_text(encoding="utf-8")
    source = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    compared = part(facts.differences, study)
    trained, depth = found["training"].facts, found["depth"].facts
    return environment.get_template("index.html.j2").render(
        **{**found, "claims": _anchored(found["claims"])},
        article=_records(part(_article, study)),
        published=_records(part(facts.published, study)),
        crosscheck=_records(part(facts.crosscheck, study)),
        compared=compared,
        making=facts.making(study),
        drawn=_galleries(study),
        study=study, pages=pages, sections=[{"id": id, "title": title} for id, title in SECTIONS],
        titles={job.name: notebook_title(job.notebook) or "" for job in study.jobs if job.notebook},
        whole=not unwell, unwell=unwell, n_done=sum(job.state == DONE for job in study.jobs),
        notions=facts.depth_words(depth) if depth else (),
        peer_words=_peer_words(depth) if depth else "",
        pays=pays(trained, compared.facts or ()) if trained else "",
        images_words=_images_words(trained.images) if trained else "",
        record_elapsed=study.record.get("elapsed_s"),
        default_subject=facts.SUBJECT,
        script=Markup(script), script_source=f"'sha256-{source}'",  # safe: our own file
    )  # fmt: skip


def _article(study: Study) -> Any:
    return study.table("20_depth", "article", {"network": str, "step": str, "said": int, "counted": int, "holds": bool})


def _records(found: Part[Any]) -> Part[list[dict[str, Any]]]:
    """The rows of a frame; an empty frame is no gap, and nothing to show."""
    if found.facts is None:
        return Part(gap=found.gap)
    return Part([{str(k): v for k, v in row.items()} for row in found.facts.to_dict("records")])


def _anchored(found: Part[facts.Claims]) -> Part[facts.Claims]:
    """Every claim with an id of its own to link to, and what it is about in words."""
    if found.facts is None:
        return found
    rows, taken = [], set()
    for row in found.facts.rows:
        anchor = f"claim-{words.anchor(row['id'])}"
        while anchor in taken:
            anchor += "-2"
        taken.add(anchor)
        counted = row["quantity"].startswith("=")  # a formula, whose names say what is counted
        what = [] if counted else [facts.quantity_label(row["quantity"])]
        about = ", ".join([*what, row["definition"].replace("_", " ")])
        rows.append({**row, "anchor": anchor, "about": about})
    return Part(replace(found.facts, rows=tuple(rows)))


def _peer_words(depth: facts.Depth) -> str:
    """What the subject is of its rival, notion by notion; nothing where the rival was not counted."""
    shares = [
        f"{words.percent(depth.ratio[notion])} by {facts.quantity_label(notion).lower()}"
        for notion in ("trunk_depth", "longest_path", "weighted_layers")
        if notion in depth.ratio
    ]
    if not shares:
        return ""
    return f"{display_name(depth.subject)} is as deep as {display_name(facts.PEER)} to {listed(shares)}."


def pays(trained: facts.Training, tested: Sequence[facts.Difference]) -> str:
    """What the runs allow to say about which network is better; with few seeds, nothing."""
    if len(trained.results) < 2:
        return "One network alone allows no comparison."
    if len(trained.datasets) > 1:
        return "The runs used different data, so they are not compared."
    if not trained.decides:
        return f"With fewer than {facts.LEAST_SEEDS} seeds no order of the networks is claimed, whatever the means are."
    if not tested:
        return "The paired differences were not tested, so no order of the networks is claimed."
    said = [_difference_words(row) for row in tested]
    if len(tested) > 1 and any(row.is_shown for row in tested):
        least = min(row.p_value for row in tested if row.p_value is not None)
        is_kept = least * len(tested) < facts.SIGNIFICANT
        said.append(
            f"Each p is that of one comparison alone; corrected for all {len(tested)} (Bonferroni), "
            f"{'the least is' if is_kept else 'none is'} below {facts.SIGNIFICANT:g}."
        )
    return " ".join(said)


def _difference_words(tested: facts.Difference) -> str:
    reference, network = display_name(tested.reference), display_name(tested.network)
    if tested.label_noise:
        network += f" with {100 * tested.label_noise:.0f} % of the labels wrong"
    if not tested.is_shown:
        return f"No difference between {reference} and {network} is shown."
    order = "less" if tested.mean < 0 else "more"
    return f"{reference} errs {abs(tested.mean):.2g} points {order} than {network} (p = {tested.p_value:.2g})."


def _images_words(images: Sequence[int]) -> str:
    return " or ".join("all images" if n == 0 else f"{n:,} images" for n in images)


def _galleries(study: Study) -> dict[str, Gallery]:
    left = INDEX_BYTES
    galleries: dict[str, Gallery] = {}
    for section, (steps, first) in DRAWN.items():
        drawn, lost = [], []
        for job, path in _figures(study, steps, first):
            anchor = f"figure-{words.anchor(job.name)}-{words.anchor(path.stem)}"
            try:
                found = read_figure(path, prefix=anchor)
            except FigureError as error:
                what = f"A figure of {job.name} cannot be shown: {error}."
                lost.append(Gap(what, f"`{study.remedy}` makes it anew.", job.name))
                continue
            if (weight := len(found.svg)) > min(FIGURE_BYTES, left):
                what = f"{path.name} is too heavy for this page ({weight // 1000} kB)."
                lost.append(Gap(what, f"It is in {job.name}/figures.", job.name))
                continue
            left -= weight
            drawn.append(Drawn(found, anchor))
        n_shown = min(OPEN_FIGURES, sum(not _is_of_another(d.figure.name) for d in drawn) or OPEN_FIGURES)
        galleries[section] = Gallery(tuple(drawn[:n_shown]), tuple(drawn[n_shown:]), tuple(lost))
    return galleries


def _figures(study: Study, steps: Sequence[str], first: Sequence[str]) -> list[tuple[Job, Path]]:
    """The figures of some steps: those about the page's subject or about many networks before those about another."""

    def rank(figure: tuple[Job, Path]) -> tuple[object, ...]:
        job, path = figure
        place = next((k for k, start in enumerate(first) if path.stem.startswith(start)), len(first))
        return _is_of_another(path.stem), steps.index(job.step), place, path.name

    found = ((job, path) for step in steps for job in study.of(step) for path in job.figures)
    return sorted((figure for figure in found if not figure[1].stem.startswith(DETAILS)), key=rank)


def _is_of_another(stem: str) -> bool:
    """Is a figure about one network, as `by_stage_attention92` is, and not the page's subject?"""
    network = stem.rpartition("_")[2]
    return network != facts.SUBJECT and display_name(network) != network


# --- the templates --------------------------------------------------------------------------------------------------

# Of the roles, as in `analysis.figures.plots`, which is too heavy to import for two colours; a test compares them.
COLOURS = {"outside": "#6b7480", "trunk": "#0072B2", "mask": "#D55E00"}


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": words.number, "short": words.short, "percent": words.percent, "duration": words.duration,
        "text": _text, "leading": _leading_number, "stage_label": part_name,
    }  # fmt: skip
    environment.globals |= {
        "label": display_name, "quantity_label": facts.quantity_label, "networks_of": facts.networks_of,
        "signs": facts.SIGNS,
        "branches_of": lambda stages: list(dict.fromkeys(branch for row in stages.values() for branch in row)),
        "colours": COLOURS, "style": Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
    }  # fmt: skip
    return environment


def _text(value: Any) -> str:
    return "\N{EN DASH}" if value is None or value != value or value == "" else str(value)


FACTORS = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def _leading_number(text: str) -> str:
    """What a cell such as `31.9 M` is sorted by; nothing, where it does not begin with a number."""
    match = re.match(r"[<>]?\s*([+-]?[\d,]*\.?\d+(?:[eE][+-]?\d+)?)\s*([kMGT])?\b", text.replace("\N{MINUS SIGN}", "-"))
    return f"{float(match[1].replace(',', '')) * FACTORS.get(match[2] or '', 1):.10g}" if match else ""
