"""The article: from any study, in order, with numbers from its tables, and silent about what the study does not have."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import studies
from bs4 import BeautifulSoup

from analysis.claims.ledger import ledger
from analysis.report import build
from analysis.report.article import CHAPTER_IDS, CHAPTERS, article
from analysis.report.facts.printed import CELL, PAPER, TABLE, places_and_quotes, printed_tables
from analysis.report.reading import read_study
from analysis.statistics.conclusions import headline
from analysis.tables import schemas, steps

ROOT = Path(__file__).resolve().parents[2]
ONE = "cifar-resnet56"


def _without(*names: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        studies.complete(folder)
        for name in names:
            shutil.rmtree(folder / name)
        return folder

    return make


def _one_network(folder: Path) -> Path:
    """A study of one ResNet alone, without a mask anywhere."""
    depths = [
        {"network": ONE, "quantity": q, "value": 56 if q != "weighted_layers" else 59, "unit": "layers"}
        for q in ("claimed_depth", "trunk_depth", "longest_path", "weighted_layers")
    ]
    studies.done(folder, steps.DEPTH, {schemas.DEPTH: depths})
    cost = [
        {"network": ONE, "role": "trunk", "quantity": q, "value": v, "unit": ""}
        for q, v in (("params", 590_000), ("macs", 88_000_000))
    ]
    studies.done(folder, steps.COST, {schemas.COST: cost})
    field = [{"network": ONE, "stage": "stage1", "branch": "trunk", "value": 39, "least": 39, "unit": "px"}]
    studies.done(folder, steps.RECEPTIVE_FIELD, {schemas.RECEPTIVE_FIELD: field})
    studies.done(folder, f"{steps.TRAIN}/{ONE}-s0", {schemas.RUN: [studies.run_row(ONE, 0)]})
    return folder


STUDIES: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "complete": (studies.complete, ("used",)),  # the made-up study has no used depth
    "no masks": (_without(steps.MASKS), ("used", "look")),
    "no training": (_without(steps.TRAIN, steps.COMPARE, steps.MASKS), ("used", "look", "worth")),
    "one network": (_one_network, ("where", "used", "look", "print")),
    "half": (_without(steps.COST, steps.COMPARE, steps.MASKS, steps.CLAIMS), ("used", "price", "look", "print")),
    "nothing": (lambda folder: folder, CHAPTER_IDS),
}


@pytest.fixture(scope="module", params=STUDIES.values(), ids=list(STUDIES))
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, ...]]:
    make, absent = request.param
    return make(tmp_path_factory.mktemp("study")), absent


def _page(folder: Path) -> BeautifulSoup:
    _, page = next(iter(build.pages(read_study(folder))))
    return BeautifulSoup(page, "html.parser")


def test_chapters_stand_in_order_and_what_is_missing_is_said_once(written: tuple[Path, tuple[str, ...]]) -> None:
    folder, absent = written
    found = article(read_study(folder))
    assert [chapter.id for chapter in found.chapters] == [id for id in CHAPTER_IDS if id not in absent]
    assert set(found.missing) == {title for id, title in zip(CHAPTER_IDS, CHAPTERS, strict=True) if id in absent}
    page = _page(folder)
    assert [s["id"] for s in page.select("section.chapter") if s["id"] != "words"] == [c.id for c in found.chapters]
    assert len(page.select("#missing li")) == len(absent)
    for gap in found.missing.values():
        assert gap.remedy
    linked = [link["href"].removeprefix("#") for link in page.select("#abstract .findings a")]
    assert linked == [chapter.id for chapter in found.chapters]


def test_it_reads_well_whatever_is_missing(written: tuple[Path, tuple[str, ...]]) -> None:
    for chapter in article(read_study(written[0])).chapters:
        for words in (chapter.finding, *chapter.text, *(p.title + p.takeaway for p in chapter.plates)):
            plain = re.sub(r" ?\[(@|fig:)[\w-]+\]", "", words)
            assert plain.strip(), chapter.id
            assert not re.search(r"\b(None|nan|inf)\b|\{|\}|  |\.\.| ,| \.|\(\)|\[@|[\w ]: [.;]", plain), (
                chapter.id,
                plain,
            )
        assert re.search(r"[.)]$", chapter.finding), chapter.finding


def test_figures_are_numbered_in_order_and_referred_to_by_number(written: tuple[Path, tuple[str, ...]]) -> None:
    page = _page(written[0])
    numbers = [int(n) for n in re.findall(r"Figure (\d+)\. ", " ".join(c.get_text() for c in page("figcaption")))]
    first = 1 if page.select_one(".strip") else 2
    assert numbers == list(range(first, first + len(numbers)))
    for link in page.select(".chapter a[href^='#fig-']"):
        number = re.sub(r"\D", "", link.get_text())
        assert f"Figure {number}." in page.select_one(f"{link['href']} figcaption").get_text()  # type: ignore[union-attr]


def test_no_two_landmarks_share_a_name(written: tuple[Path, tuple[str, ...]]) -> None:
    page = _page(written[0])
    names = [page.find(id=s["aria-labelledby"]).get_text() for s in page("section")]  # type: ignore[union-attr]
    assert len(names) == len(set(names))
    assert all(cell.get_text(strip=True) for cell in page("th"))


def test_the_article_follows_the_tables(tmp_path: Path) -> None:
    studies.complete(tmp_path)
    rows = [
        {**row, "value": row["value"] + 7} if row["quantity"] == "longest_path" else row for row in studies.depth_rows()
    ]
    studies.done(tmp_path, steps.DEPTH, {schemas.DEPTH: rows})
    named = next(c for c in article(read_study(tmp_path)).chapters if c.id == "named")
    assert "its longest path has 87 weighted layers" in named.finding
    assert named.plates[0].title == "Attention-56 has 31 layers more than its name says"


# --- the tables of the paper ----------------------------------------------------------------------------------------


def _claims() -> list[dict[str, str]]:
    rows = [
        {
            "id": c.id,
            "source": c.source,
            "place": c.place,
            "quote": c.quote,
            "quantity": c.quantity,
            "value": c.value,
            "printed": "",
            "verdict": "",
            "measured": "",
        }
        for c in ledger()
    ]
    assert rows
    return rows


def test_every_quoted_cell_of_the_paper_stands_in_its_table_once() -> None:
    claims = [c for c in _claims() if c["source"] == PAPER]
    shown = [
        (table.name, cell.claim["id"])
        for table in printed_tables(claims)
        for row in table.cells.values() for cells in row.values() for cell in cells
    ]  # fmt: skip
    quoted = [(place, c["id"], quote) for c in claims for place, quote in places_and_quotes(c)]
    assert sorted(shown) == sorted(q[:2] for q in quoted if TABLE.fullmatch(q[0]) and CELL.fullmatch(q[2]))
    # A row that names two tables has the cell of each, but for what a sentence repeats.
    for claim in claims:
        tables = [place for place in claim["place"].split("; ") if TABLE.fullmatch(place)]
        assert [name for name, id in sorted(shown) if id == claim["id"]] in (sorted(tables), []), claim["id"]
        for _, quote in places_and_quotes(claim)[1:]:
            met, printed = CELL.fullmatch(quote), claim["value"]
            assert met is None or met["words"] == printed, claim["id"]


def test_the_tables_have_the_shape_and_the_cells_of_the_paper() -> None:
    tables = {table.name: table for table in printed_tables(_claims())}
    # Source: wang2017, tables 7, 6, 3 and 2.
    shapes = {"Table 7": (9, 4), "Table 6": (7, 3), "Table 3": (4, 2), "Table 5": (4, 2), "Table 1": (3, 1)}
    for name, shape in shapes.items():
        assert (len(tables[name].cells), len(tables[name].columns)) == shape, name
    cells = tables["Table 7"].cells
    assert [cell.words for cell in cells["Attention-56"]["params×10^6"]] == ["31.9"]
    assert [cell.words for cell in cells["ResNet-200 [11]"]["FLOPs×10^9"]] == ["15.0"]
    sizes = [words for row, own in tables["Table 2"].cells.items() for words in [row] if "Output Size" in own]
    assert "Residual Unit, 7×7" in sizes
    assert [c.words for c in tables["Table 2"].cells["params×10^6"]["Attention-92"]] == ["51.3"]
    assert [tables[name].data for name in ("Table 2", "Table 6", "Table 7")] == [
        (),
        ("CIFAR-10", "CIFAR-100"),
        ("ImageNet",),
    ]


# --- what is said of orders -----------------------------------------------------------------------------------------


def _rows(**changes: object) -> dict[str, object]:
    row = {"network": "cifar-resnet56", "reference": "cifar-attention56", "label_noise": 0.0, "n": 8, "mean": -0.3,
           "low": -0.9, "high": 0.3, "p_value": 0.4, "order": "", "equivalence": "Equivalence within 0.5 is not shown (x)."}  # fmt: skip
    return {**row, **changes}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "No difference in test error is shown between CIFAR Attention-56 and CIFAR ResNet-56."),
        ({"order": "lower"}, "The test error of CIFAR Attention-56 is 0.3 points lower than that of CIFAR ResNet-56."),
        ({"low": float("nan"), "order": float("nan")}, "No order of CIFAR Attention-56 and CIFAR ResNet-56 is claimed."),
        ({"n": 0}, ""),
        (
            {"equivalence": "Equivalent within 0.5 (90 % interval of the difference: -0.40 to 0.10)."},
            "No difference in test error is shown between CIFAR Attention-56 and CIFAR ResNet-56. "
            "CIFAR ResNet-56 is equivalent to CIFAR Attention-56 within 0.5 points.",
        ),
    ],
)  # fmt: skip
def test_the_headline_says_what_the_table_concludes(changes: dict[str, object], words: str) -> None:
    assert headline(pd.DataFrame([_rows(**changes)])) == words


def test_a_headline_names_each_of_several_networks() -> None:
    equal = "Equivalent within 0.5 (x)."
    rows = [_rows(equivalence=equal), _rows(network="cifar-resnet74", equivalence=equal)]
    assert headline(pd.DataFrame(rows)) == (
        "No difference in test error is shown between CIFAR Attention-56 and CIFAR ResNet-56 or CIFAR ResNet-74. "
        "CIFAR ResNet-56 and CIFAR ResNet-74 are equivalent to CIFAR Attention-56 within 0.5 points."
    )


# What a reader asks first, and the chapter whose finding answers; all findings stand in the abstract, on the second screen.
QUESTIONS = {
    "how many layers does it really have?": ("named", r"named 56, .* longest path has 80 .* executes 111"),
    "where are the others?": ("where", r"26, 20 and 14 .* 12 on the trunk: .* in the masks"),
    "how many are used?": ("used", r"gradient .* passes [\d.]+ layers on average, of 80"),
    "what does it cost?": ("price", r"31\.8 M parameters and 6\.27 G multiply-adds"),
    "what is the masks' part of it?": ("price", r"masks account for 22 % and 28 % of them"),
    "how far does a unit see, with masks and without?": ("sight", r"1,155 px with and 427 px without"),
    "is the mask needed?": ("look", r"test error of .* is [\d.]+ % instead of [\d.]+ %"),
    "does the mask look at the object?": ("look", r"(lower|higher) on the object than on the background \(AUC 0\.\d+\)"),
    "does it pay?": ("worth", r"test error .* ResNet-74 .* 8 seeds each"),
    "how much of the print holds?": ("print", r"Of \d+ printed numbers .* \d+ are confirmed, \d+ are off"),
    "may I trust Table 7's 31.9 M?": ("print", r"Table 7 prints 31\.9 M for Attention-56, .* another definition only: 31\.811 M"),
}  # fmt: skip


@pytest.fixture(scope="module")
def findings() -> dict[str, str]:
    return {chapter.id: chapter.finding for chapter in article(read_study(ROOT / "results" / "reference")).chapters}


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_abstract_answers_what_a_reader_asks_first(question: str, findings: dict[str, str]) -> None:
    chapter, answer = QUESTIONS[question]
    assert re.search(answer, findings[chapter].replace("\N{NO-BREAK SPACE}", " "))
