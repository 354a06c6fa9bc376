"""Builds the report of a study's folder in any state of the study. The folder of pages appears in one step."""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from analysis.report.article import CHAPTER_IDS, Article, article, references
from analysis.report.facts import claims, cost, depth, masks, receptive_field, training
from analysis.report.facts.making import making
from analysis.report.facts.printed import PAPER, printed_tables
from analysis.report.facts.subject import SUBJECT
from analysis.report.facts.summary import citation, limits, summary
from analysis.report.galleries import SECTIONS, Section, drawings
from analysis.report.gaps import Gap, Part, part
from analysis.report.notebooks import PAGE_BYTES, TEMPLATES, NotebookPageError, Pages, notebook_title
from analysis.report.reading import ALTERED, DONE, NOTEBOOK, REPORT, Job, Study, read_study
from analysis.statistics.conclusions import headline
from analysis.tables import schemas
from analysis.tables.files import open_regular, write_atomic
from analysis.tables.formats import anchor, display_name, duration, number, part_name, percent, short, signed
from analysis.tables.quantities import quantity_label

INDEX, PAGES = "index.html", "pages"
MADE_BY = b'<meta name="generator" content="resattn report">'
MAX_BYTES = 5_000_000  # of the folder
LOG_CHARACTERS = 40_000  # the end of a failed run's log
FILE_NAME = 100  # characters of a page's file name


# What each part of the page reads, the rows of a table or facts, by the section that says what is missing of it.
READ: Mapping[str, Mapping[str, schemas.Schema | Callable[[Study], Any]]] = {
    "depth": {"depth": depth.depth, "modules": depth.modules, "arithmetic": schemas.ARTICLE},
    "cost": {"cost": cost.cost, "published": schemas.PUBLISHED, "crosscheck": schemas.CROSSCHECK},
    "field": {"field": receptive_field.receptive_field},
    "training": {"training": training.training, "compared": training.differences},
    "masks": {"masks": masks.masks},
    "claims": {"claims": claims.claims},
}


class Moves(Protocol):
    """The interactive part of the opening page, passed as an argument, such as `analysis.explore.page.Block`."""

    @property
    def html(self) -> str: ...
    @property
    def style(self) -> str: ...
    @property
    def scripts(self) -> tuple[str, ...]: ...


class ReportError(RuntimeError):
    """The report cannot be written; the message says where, and what to do."""


def build_report(study_dir: Path | str, moves: Moves | None = None) -> Path:
    """Builds the report of a study from its tables and returns the path of its `index.html`.

    A study that is empty, incomplete or failed gives a report too, which says what is missing and how to get it.
    `moves`: a part of the opening page that is made from networks and not from tables.
    Raises: ReportError if there is no such folder, or its `report` was not written by this function.
    """
    folder = Path(study_dir).resolve()
    if not folder.is_dir():
        raise ReportError(f"no folder {study_dir}; give one that `resattn study` made, such as results/quick")
    target = folder / REPORT
    if not _is_ours(target):
        raise ReportError(f"{target} was not written by `resattn report`; move it away")
    beside = folder / f".{REPORT}.{secrets.token_hex(4)}.part"
    try:
        for name, page in pages(read_study(folder), moves):
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
    if not target.exists() or not any(target.iterdir()):
        return True
    try:
        with open_regular(target / INDEX) as file:  # a user's folder may have such a page too
            return MADE_BY in file.read(4096)
    except OSError:
        return False


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


def pages(study: Study, moves: Moves | None = None) -> Iterable[tuple[str, str]]:
    """Name in the folder and text of every page, the opening page first."""
    shown = [job for job in study.jobs if job.notebook or job.log]
    files = _file_names(job.name for job in shown)
    environment = _environment()
    index = _encodable(_index(environment, study, {job.name: f"{PAGES}/{files[job.name]}" for job in shown}, moves))
    yield INDEX, index
    notebooks = Pages()
    left = MAX_BYTES - len(index.encode()) - 100_000
    # Training runs last: they are many and alike, so that they lose their pictures where the report is too heavy.
    for job in sorted(shown, key=lambda job: ("train" in job.step, job.name)):
        body, problem = Markup(), ""
        if job.notebook and job.state in (DONE, ALTERED) and (altered := job.problem(NOTEBOOK)):
            problem = f"{NOTEBOOK} cannot be shown: {altered}"
        elif job.notebook:
            try:
                body = notebooks.body(job.notebook, budget=min(PAGE_BYTES, left))
            except NotebookPageError as error:
                problem = str(error)
        page = _encodable(_notebook_page(environment, job, shown, files, body, problem))
        left -= len(page.encode())
        yield f"{PAGES}/{files[job.name]}", page


def _encodable(page: str) -> str:
    """A page without lone surrogates, which JSON may have and UTF-8 may not."""
    return page.encode("utf-8", "replace").decode()


def _file_names(names: Iterable[str]) -> dict[str, str]:
    files: dict[str, str] = {}
    taken: dict[str, int] = {}  # how often the beginning of a file's name was met
    for name in names:
        stem = anchor(name)[:FILE_NAME]
        taken[stem] = taken.get(stem, 0) + 1
        files[name] = f"{stem}.html" if taken[stem] == 1 else f"{stem}~{taken[stem]}.html"
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
        with open_regular(job.log) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 4 * LOG_CHARACTERS, 0))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return f"The log cannot be read: {error.strerror}"
    return text if len(text) <= LOG_CHARACTERS else "[its end]\n" + text[-LOG_CHARACTERS:]


def _index(environment: Environment, study: Study, pages: Mapping[str, str], moves: Moves | None) -> str:
    unfinished: dict[str, list[str]] = {}
    for job in study.jobs:
        if job.state != DONE:
            unfinished.setdefault(job.state, []).append(job.name)
    parts: dict[str, dict[str, Part[Any]]] = {
        id: {
            name: part(study.rows, r) if isinstance(r, schemas.Schema) else part(r, study) for name, r in reads.items()
        }
        for id, reads in READ.items()
    }
    facts = {name: result for section in parts.values() for name, result in section.items()}
    written = article(study)
    drawn = drawings(study, written.chapters, first_number=2)  # the strip of the opening is the first
    refs = part(references, study).facts or []
    cited = {row["source"]: k for k, row in enumerate(refs, start=1)}
    own = ((TEMPLATES / f"{name}.js").read_text(encoding="utf-8") for name in ("ledger", "frames"))
    script = "\n".join((*own, *(moves.scripts if moves else ())))
    source = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    trained = facts["training"].facts
    compared = part(study.table, schemas.DIFFERENCES).facts
    expected = part(study.rows, schemas.EXPECTED).facts  # of a study with the experiment of the protocol
    environment.filters["prose"] = functools.partial(_prose, figures=drawn.numbers, cited=cited)
    return environment.get_template("index.html.j2").render(
        **facts,
        making=making(study), expected=expected or (),
        nav=_nav(written), terms=Markup((TEMPLATES / "terms.svg").read_text(encoding="utf-8")),  # safe: our own file
        article=written, plates=drawn.plates, drawn=drawn.galleries, references=refs,
        summary=summary(study), limits=limits(study), citation=citation(),
        tables=printed_tables(facts["claims"].facts.rows) if facts["claims"].facts else (),
        missing={section.id: _missing(study, section, parts.get(section.id, {})) for section in SECTIONS},
        study=study, pages=pages, sections=[section for section in SECTIONS if section.title],
        titles={job.name: notebook_title(job.notebook) for job in study.jobs if job.notebook},
        complete=not unfinished, unfinished=unfinished, n_done=sum(job.state == DONE for job in study.jobs),
        pays=training.pays(trained, facts["compared"].facts) if trained else "",
        order=headline(compared) if compared is not None else "",
        images_words=training.images_words(trained.images) if trained else "",
        record_elapsed=elapsed if isinstance(elapsed := study.record.get("elapsed_s"), int | float) else None,
        default_subject=SUBJECT, paper=PAPER,
        moves=Markup(f"<style>{moves.style}</style>\n{moves.html}") if moves else "",  # safe: our own files
        script=Markup(script), script_source=f"'sha256-{source}'",  # safe: our own files
    )  # fmt: skip


NAV = {
    "abstract": "Abstract", "named": "Depth", "price": "Cost", "sight": "Field", "look": "Masks", "worth": "Training",
    "print": "Verdicts", "limits": "Limits", "references": "References", "appendix": "Appendix", "claims": "Claims",
    "notebooks": "Notebooks",
}  # fmt: skip


def _nav(written: Article) -> list[tuple[str, str]]:
    absent = {id for id in CHAPTER_IDS if id not in {chapter.id for chapter in written.chapters}}
    return [(id, title) for id, title in NAV.items() if id not in absent]


MARK = re.compile(r"`([^`]+)`| ?\[@([\w-]+)\]| ?\[fig:([\w-]+)\]")


def _prose(text: str, figures: Mapping[str, int], cited: Mapping[str, int]) -> Markup:
    """Words of the article with their code spans, references and figures as links; of what is not there, nothing."""

    def linked(met: re.Match[str]) -> Markup:
        code, key, figure = met.groups()
        if code:
            return Markup("<code>{}</code>").format(code)
        if key:
            return (
                Markup("\N{NO-BREAK SPACE}<a href='#ref-{}'>[{}]</a>").format(key, cited[key])
                if key in cited
                else Markup()
            )
        return Markup(" (<a href='#fig-{0}'>Figure\N{NO-BREAK SPACE}{1}</a>)").format(figure, figures[figure]) if (
            figure in figures) else Markup()  # fmt: skip

    pieces, at = [], 0
    for met in MARK.finditer(text):
        pieces += [escape(text[at : met.start()]), linked(met)]
        at = met.end()
    return Markup().join([*pieces, escape(text[at:])])


def _missing(study: Study, section: Section, parts: Mapping[str, Part[Any]]) -> list[Gap]:
    """Each gap of a section once: of what it reads, then of all tables that its steps should have left."""
    of_parts = [read.gap for read in parts.values() if read.gap is not None]
    return list(dict.fromkeys([*of_parts, *study.gaps((*section.steps, *section.runs))]))


# --- the templates --------------------------------------------------------------------------------------------------

# Of the roles, as in `analysis.figures.style`, which is too heavy to import for two colours; a test compares them.
COLOURS = {"outside": "#4a7196", "trunk": "#0072B2", "mask": "#D55E00"}


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number, "short": short, "percent": percent, "duration": duration, "signed": signed,
        "text": _text, "trimmed": _trimmed, "leading": _leading_number, "stage_label": part_name,
    }  # fmt: skip
    environment.globals |= {
        "label": display_name, "quantity_label": quantity_label, "networks_of": claims.networks_of,
        "signs": claims.SIGNS,
        "branches_of": lambda stages: list(dict.fromkeys(branch for row in stages.values() for branch in row)),
        "colours": COLOURS, "style": Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
    }  # fmt: skip
    return environment


def _text(value: Any) -> str:
    return "\N{EN DASH}" if value is None or value != value or value == "" else str(value)


def _trimmed(text: str) -> str:
    """`21.4300 %` as `21.43 %`: digits that say nothing, in a cell with little room."""
    return re.sub(r"(\.\d*?[1-9])0+\b|\.0+\b", r"\1", text)


FACTORS = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def _leading_number(text: str) -> str:
    """What a cell such as `31.9 M` is sorted by; nothing, where it does not begin with a number."""
    pattern = r"[<>]?\s*([+-]?[\d,]*\.?\d+(?:[eE][+-]?\d{1,3})?)\s*([kMGT])?\b"
    match = re.match(pattern, text.replace("\N{MINUS SIGN}", "-"), re.ASCII) if len(text) <= 60 else None
    return f"{float(match[1].replace(',', '')) * FACTORS.get(match[2] or '', 1):.10g}" if match else ""
