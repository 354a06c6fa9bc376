"""The article of the report: its findings in order, each with text and figures.

Every number is computed from the tables of the study, and every statement about an order of networks comes from
`analysis.statistics.conclusions`. In the text, `[@key]` is a reference and `[fig:id]` a figure of the article.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pandas as pd

from analysis.report import sentences
from analysis.report.facts import claims, cost, depth, masks, receptive_field, training
from analysis.report.facts.printed import PAPER
from analysis.report.facts.subject import PEER
from analysis.report.gaps import Gap, part
from analysis.report.reading import Study
from analysis.statistics.conclusions import headline
from analysis.tables import schemas, steps
from analysis.tables.formats import anchor, counted, display_name, listed, number, part_name, percent, short, signed


@dataclass(frozen=True)
class Plate:
    """A figure that the article needs: the step that makes it, the possible names of its file, and its caption."""

    id: str
    step: str
    stems: tuple[str, ...]  # the first that there is
    title: str
    takeaway: str


@dataclass(frozen=True)
class Chapter:
    """A part of the article. `finding`: its result in a sentence or two, which the abstract repeats."""

    id: str
    title: str
    finding: str
    text: tuple[str, ...]
    plates: tuple[Plate, ...] = ()


@dataclass(frozen=True)
class Article:
    """The chapters for which the study has tables, and what is missing for the others: title -> gap."""

    chapters: tuple[Chapter, ...]
    missing: Mapping[str, Gap] = field(default_factory=dict)


def article(study: Study) -> Article:
    """All chapters in the order of the findings."""
    parts = {title: part(write, study, title) for title, write in CHAPTERS.items()}
    return Article(
        tuple(found.facts for found in parts.values() if found.facts is not None),
        {title: found.gap for title, found in parts.items() if found.gap is not None},
    )


def _named(study: Study, title: str) -> Chapter:
    facts = depth.depth(study)
    name = display_name(facts.subject)
    claimed, trunk, longest = (facts.of(q) for q in ("claimed_depth", "trunk_depth", "longest_path"))
    layers = facts.of("weighted_layers")
    if trunk is None or longest is None:
        raise study.no_rows(schemas.DEPTH)
    deeper = {n: row for n, row in facts.table.items() if _above(row, "longest_path", "trunk_depth")}
    plain = [n for n in facts.table if n not in deeper]
    called = f"is named {claimed}" if claimed is not None else "has no number in its name"
    if longest > trunk:
        what = ", the depth of its trunk" if claimed == trunk else ""
        finding = f"{name} {called}{what}; its longest path has {longest} weighted layers"
    else:
        finding = f"{name} {called}; its longest path is its trunk, with {longest} weighted layers"
    finding += f", and one forward pass executes {layers}." if layers else "."
    text = [
        "The number in the name of a ResNet counts the weighted layers on its main path [@he2016]. The number in the "
        "name of a Residual Attention Network counts those of the trunk and leaves the masks out [@wang2017]."
    ]
    others = [f"{display_name(n)} ({row['longest_path']} layers)" for n, row in deeper.items() if n != facts.subject]
    known = f"The longest path is the trunk in {len(plain)} of the {len(facts.table)} networks here"
    if plain and others:
        text.append(f"{known}; it is longer than the trunk in {listed(others)}.")
    elif plain:
        text.append(f"{known}.")
    elif others:
        text.append(f"The longest path is also longer than the trunk in {listed(others)}.")
    if facts.peer_words and facts.subject != PEER:
        text.append(
            f"{facts.peer_words} The first share leaves out the masks of {name}; the others include them. [fig:named]"
        )
    words = f"{name} has {longest - (claimed or trunk)} layers more than its name says" if longest > trunk else finding
    plate = Plate(
        "named", steps.DEPTH, ("depth_224", "depth_32"), words.rstrip("."),
        "Three bars for each network: the number in the name (hollow), the longest path and all weighted layers. "
        "Layers in masks are orange.",
    )  # fmt: skip
    return Chapter("named", title, finding, tuple(text), (plate,))


def _above(row: Mapping[str, int | None], more: str, less: str) -> bool:
    first, second = row.get(more), row.get(less)
    return first is not None and second is not None and first > second


def _where(study: Study, title: str) -> Chapter:
    facts = depth.modules(study)
    name = display_name(depth.depth(study).subject)
    if not facts.modules:
        raise study.no_rows(schemas.MODULES)
    deep, trunk = [m.longest for m in facts.modules], sorted({m.trunk for m in facts.modules})
    is_deeper = any(m.extra > 0 for m in facts.modules)
    where = (
        f"The attention modules of {name} are {listed(deep)} layers deep on their longest path and {listed(trunk)} on "
        "the trunk"
    )
    finding = f"{where}: the additional layers are in the masks." if is_deeper else f"{where}."
    text = []
    if is_deeper:
        text.append(
            "Each pooling in a mask adds units in series, so a mask on a large map is deeper than one on a small map. "
            "The trunk beside it always has the same number of units. [fig:where]"
        )
    rows = part(study.table, schemas.ARTICLE).facts
    if rows is not None and not rows.empty:
        text.append(
            "A note on the paper assigns the same depth to every module [@article2021]. "
            + sentences.article(rows, is_short=True)
        )
    plate = Plate(
        "where", steps.VARIANTS, (f"trunk_and_mask_{depth.depth(study).subject}",),
        f"The masks add {sum(m.extra for m in facts.modules)} layers to the trunk of {name}",
        "Length: layers. Height: multiply-adds. Thin line: the longest path; pale layers are not on it.",
    )  # fmt: skip
    return Chapter("where", title, finding, tuple(text), (plate,))


def _used(study: Study, title: str) -> Chapter:
    frame = study.table(schemas.USED_UNTRAINED)
    if frame.empty:
        raise study.no_rows(schemas.USED_UNTRAINED)
    networks = list(frame["network"].unique())
    subject = next(n for n in ("attention56", *networks) if n in networks)
    of = sentences.Spread.of(frame[frame["network"] == subject])
    name = display_name(subject)
    finding = (
        f"With random weights, the gradient of {name} passes {of.mean:.1f} layers on average, of {of.longest} on the "
        f"longest path; 90 % of its energy passes {of.low} to {of.high}."
    )
    text = [
        "A path can bypass a residual unit through its identity connection, so there are paths of all lengths, and "
        "most of the gradient flows through short ones [@veit2016]. Here it is measured over all paths at once. "
        f"The mean path of {name} has {of.mean_of_paths:.1f} layers if every path counts once, and {of.mean:.1f} if "
        "each is weighted by the energy of its gradient. [fig:used]"
    ]
    trained = part(study.table, schemas.USED_MEANS).facts
    if trained is not None:
        text += _trained_depth(trained)
    plate = Plate(
        "used", steps.DEPTH, ("used_depth",), f"The gradient passes {of.mean:.0f} layers on average, not {of.longest}",
        "Shaded: how many paths have each length. Line: how much of the gradient's energy takes them.",
    )  # fmt: skip
    return Chapter("used", title, finding, tuple(text), (plate,))


def _trained_depth(means: pd.DataFrame) -> list[str]:
    rows = means[means["paths"] == "all"]
    found = [
        f"{_before(rows, row.network)}to {row.mean:.1f} layers for {display_name(str(row.network))}"
        for row in rows[rows["state"] == "after"].itertuples()
    ]
    if not found:
        return []
    return [f"Training on {listed(rows['dataset'].unique())} changes this mean {listed(found)}."]


def _before(rows: pd.DataFrame, network: object) -> str:
    own = rows[(rows["network"] == network) & (rows["state"] == "before")]["mean"]
    return f"from {own.iloc[0]:.1f} " if len(own) else ""


def _cost(study: Study, title: str) -> Chapter:
    facts = cost.cost(study)
    name = display_name(facts.subject)
    shares = [facts.share(q) for q in ("params", "macs")]
    finding = f"{name} has {short(facts.total('params'))} parameters and {short(facts.total('macs'))} multiply-adds"
    if any(shares):
        finding += f"; the masks account for {percent(shares[0])} and {percent(shares[1])} of them."
    else:
        finding += "."
    text = [
        "Counted are the parameters that a forward pass reads, and the multiply-adds of convolutions and matrix "
        "products for one image, without bias. Publications call either this number or twice this number FLOPs."
    ]
    if facts.peer:
        text.append(
            f"{name} has {percent(facts.total('params') / facts.total('params', facts.peer))} of the parameters and "
            f"{percent(facts.total('macs') / facts.total('macs', facts.peer))} of the multiply-adds of "
            f"{display_name(facts.peer)}. [fig:price]"
        )
    checks = part(study.rows, schemas.CROSSCHECK).facts
    if checks:
        tools = list(dict.fromkeys(str(row["tool"]) for row in checks))
        n_open = sum(row["unexplained"] != 0 for row in checks)
        word = f"{n_open} differences are unexplained" if n_open else "every difference is explained exactly"
        text.append(f"{len(checks)} counts were compared with those of {listed(tools)}; {word}.")
    plate = Plate(
        "price", steps.COST, ("cost_224", "cost_32"),
        f"Masks take {percent(shares[1])} of the multiply-adds of {name}" if any(shares) else f"What {name} costs",
        "Parameters and multiply-adds by role. Masks add less to the cost than to the depth, because they work on "
        "small maps.",
    )  # fmt: skip
    return Chapter("price", title, finding, tuple(text), (plate,))


def _field(study: Study, title: str) -> Chapter:
    facts = receptive_field.receptive_field(study)
    name, stages = display_name(facts.subject), facts.table[facts.subject]
    first, last = next(iter(stages.values())), facts.last
    rows = study.table(schemas.RECEPTIVE_FIELD)
    own = rows[rows["network"] == facts.subject]
    if first.get("mask") and last.get("mask"):
        finding = (
            f"The receptive field at the end of stage 1 of {name} is {number(first['mask'])} px with the masks and "
            f"{number(first.get('trunk'))} px without; at the end of the last stage it is {number(last['mask'])} px "
            f"with and {number(last.get('trunk'))} px without."
        )
    else:
        finding = f"The receptive field at the end of the last stage of {name} is {number(last.get('trunk'))} px."
    text = [
        "The receptive field is the side of the square of the input that can change one unit. It is computed exactly "
        "for every position [@araujo2019], on an input so large that no border clips it."
    ]
    uneven = own[own["least"] < own["value"]]
    if len(uneven):
        row = uneven.iloc[0]
        text.append(
            f"Because of up-sampling it differs between units of one layer: from {row['least']} to {row['value']} px "
            f"at the end of {str(row['stage']).replace('stage', 'stage ')}. Tables and curves give the largest, the "
            "drawing that of the central unit. [fig:sight]"
        )
    effective = part(study.table, schemas.EFFECTIVE).facts
    if effective is not None and not effective.empty:
        text += _effective(effective)
    wider = first["mask"] / first["trunk"] if first.get("mask") and first.get("trunk") else None
    peak = (
        f"With masks the receptive field of stage 1 is {wider:.1f} times as wide"
        if wider
        else f"Receptive field of {name}"
    )
    plate = Plate(
        "sight", steps.RECEPTIVE_FIELD, (f"over_image_{facts.subject}", f"by_stage_{facts.subject}"), peak,
        "Receptive field of one central unit at the end of each stage, with the masks and without. The dashed square "
        "is the input image.",
    )  # fmt: skip
    return Chapter("sight", title, finding, tuple(text), (plate,))


def _effective(frame: pd.DataFrame) -> list[str]:
    kind = "trained" if (frame["weights"] == "trained").any() else "random"
    own = frame[(frame["weights"] == kind) & (frame["branch"] == "mask")]
    if own.empty:
        return []
    row = own.loc[own["support_px"].idxmax()]
    return [
        f"With {kind} weights, 95 % of the gradient's energy lies within {row['side_95_px']} px where the receptive "
        f"field is {row['support_px']} px (a mask in {part_name(str(row['module']))} of "
        f"{display_name(str(row['network']))})."
    ]


def _masks(study: Study, title: str) -> Chapter:
    facts = masks.masks(study)
    data = listed(facts.datasets)
    found = [sentence for replaced in facts.replaced for sentence in replaced.findings]
    if not (finding := " ".join([*found[:1], facts.outline])):
        raise study.no_rows(schemas.MASKS)
    text = [
        "Two questions are asked. Does the network need its masks? They are replaced at test time, while the weights "
        "stay as trained. [fig:replaced] Do they outline the object? [fig:heat] They are compared with the foreground "
        f"of {data}: an area under the ROC curve (AUC) of 0.5 means no order, 1 a perfect outline."
    ]
    if found[1:]:
        text.append(" ".join(found[1:]))
    networks = sentences.simplest_first(score.network for score in facts.scores)
    nulls = [s for s in facts.scores if s.state == "after" and s.map in ("other image", "constant", "brightness")]
    areas = [f"{_mean(s.by_stage):.2f} ({s.map})" for s in nulls if s.network == networks[0] and s.by_stage]
    if areas:
        text.append(
            "An AUC shows that a mask outlines the object of its image only if it is above the AUC of maps that do not "
            f"use this image's mask: {listed(areas)} for {display_name(networks[0])}. [fig:look]"
        )
    plates = (
        Plate(
            "replaced", steps.MASKS, ("interventions",), _replaced_title(study),
            "Each dot is a run, each line a mean. Right of zero, the error is higher without the image's own mask.",
        ),
        Plate(
            "heat", steps.MASKS, tuple(f"heat_mean_digits_{anchor(network)}" for network in networks),
            "Masks over images: the mean over their channels",
            "Left, the image; then a map for each stage, with the object outlined. Each map has its own scale: dark is "
            "its least value, light its largest.",
        ),
        Plate(
            "look", steps.MASKS, ("channels_auc", "scores_auc"), _area_title(facts),
            "AUC by stage. Lines: maps that do not use the image's own mask. 0.5 means no order.",
        ),
    )  # fmt: skip
    return Chapter("look", title, finding, tuple(text), plates)


def _mean(by_stage: Mapping[str, float]) -> float:
    return sum(by_stage.values()) / len(by_stage)


def _replaced_title(study: Study) -> str:
    means = part(study.table, schemas.INTERVENTION_MEANS).facts
    if means is None or means.empty:
        return "Test error when masks are replaced"
    whole = means[(means["module"] == "all") & (means["norms"] == "as they are")]
    other = whole[whole["intervention"] == "another image's"]
    if other.empty:
        return "Test error when masks are replaced"
    rises = [f"{row.mean:+.1f}" for row in other.itertuples()]
    seeds = counted(int(other["n"].max()), "seed")
    return f"With the masks of other images the test error changes by {listed(rises)} points ({seeds})"


def _area_title(facts: masks.Masks) -> str:
    found = [f"{_mean(s.by_stage):.2f}" for s in facts.scores if (s.map, s.state) == ("mask", "after") and s.by_stage]
    return f"Masks against the true foreground: area {listed(found)}" if found else "Masks against the true foreground"


def _error(study: Study, title: str) -> Chapter:
    trained = training.training(study)
    compared = part(study.table, schemas.DIFFERENCES).facts
    found = headline(compared) if compared is not None else ""
    images = training.images_words(trained.images)
    budget = (
        f"{listed(trained.epochs)} {'epoch' if trained.epochs == (1,) else 'epochs'} on {images} of "
        f"{listed(trained.datasets)}, {counted(trained.n_seeds, 'seed')} each"
    )
    finding = f"{(found or training.pays(trained, None)).rstrip('.')} ({budget})."
    text = ["A fair comparison needs a ResNet of equal depth, by the trunk or by the longest path."]
    if compared is not None and not compared.empty:
        text.append(f"{_differences(compared)} [fig:worth]")
    words = found.partition(". ")[0].rstrip(".") if found else "Test errors of the networks"
    plate = Plate(
        "worth", steps.COMPARE, ("differences", "error_against_size"), words,
        "Each dot is a seed, each marker the mean, each bar a simultaneous 95 % interval; left of zero the first "
        "network "
        "has the lower error.",
    )  # fmt: skip
    return Chapter("worth", title, finding, tuple(text), (plate,))


def _differences(compared: pd.DataFrame) -> str:
    """Each difference with its interval; the conclusions in words where there are no intervals."""
    if compared["low"].isna().any() or compared["label_noise"].any() or compared["reference"].nunique() > 1:
        return " ".join(dict.fromkeys(compared["conclusion"]))
    found = [
        f"{_signed(row.mean)} ({_signed(row.low)} to {_signed(row.high)}) for {display_name(str(row.network))}"
        for row in compared.itertuples()
    ]
    first = display_name(str(compared["reference"].iloc[0]))
    return (
        f"The test error of {first} minus that of the other network is, in points with simultaneous 95 % intervals, "
        f"{listed(found)}."
    )


def _signed(value: float) -> str:
    return signed(value).replace("-", "\N{MINUS SIGN}")


QUESTIONED = "t7.attention56.params"  # the claim of the paper that a reader asks for first


def _print(study: Study, title: str) -> Chapter:
    facts = claims.claims(study)
    paper = [row for row in facts.rows if row["source"] == PAPER] or list(facts.rows)
    counts = {v: sum(row["verdict"] == v for row in paper) for v in dict.fromkeys(r["verdict"] for r in paper)}
    n_tested = len(paper) - counts.get(claims.NOT_TESTABLE, 0) - counts.get("built so", 0)
    wrong = sum(n for verdict, n in counts.items() if verdict in claims.WRONG)
    whose = "of the paper" if paper[0]["source"] == PAPER else "in the ledger"
    finding = (
        f"Of {len(paper)} printed numbers and statements {whose}, {n_tested} can be tested by counting: "
        f"{counts.get('confirmed', 0)} are confirmed, {wrong} are off, contradict the paper itself or misquote a "
        f"source."
    )
    by_id = {row["id"]: row for row in facts.rows}
    if first := by_id.get(QUESTIONED):
        finding += f" {_asked(first)}"
    text = (
        "Each verdict is computed; the tolerance is half of the last printed digit. The verdict built so marks a "
        "number that the network was built from: to count it again confirms nothing.",
    )
    return Chapter("print", title, finding, text)


def _asked(row: Mapping[str, str]) -> str:
    where = row["place"].partition(";")[0]
    what = display_name(row["subject"].split()[0])
    off = f" by {row['off_pct']} %" if row["off_pct"] else ""
    if row["verdict"] == "other definition":
        return f"{where} prints {row['printed']} for {what}, which is correct by another definition only: {row['why']}."
    return f"{where} prints {row['printed']} for {what}: {row['verdict']}{off}, {row['measured']} is counted."


CHAPTERS: Mapping[str, Callable[[Study, str], Chapter]] = {
    "Named depth and counted depth": _named,
    "Where the depth is": _where,
    "How much of the depth is used": _used,
    "What the network costs": _cost,
    "How large the receptive field is": _field,
    "What the masks do": _masks,
    "How the test errors compare": _error,
    "Which printed numbers are correct": _print,
}

CHAPTER_IDS = ("named", "where", "used", "price", "sight", "look", "worth", "print")
CITED = (PAPER, "fwang91", "he2016", "he2016identity", "veit2016", "araujo2019", "article2021")


def references(study: Study) -> list[Mapping[str, str]]:
    """Text and address of the cited sources, in order of citation. Raises: MissingError."""
    rows = {row["source"]: row for row in study.rows(schemas.SOURCES)}
    found: list[Mapping[str, str]] = [rows[key] for key in CITED if key in rows] or list(rows.values())
    if not found:
        raise study.no_rows(schemas.SOURCES)
    return found
