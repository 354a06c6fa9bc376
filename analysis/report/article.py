"""The article at the head of the report: findings in order, each with its words and its figures.

Every number is computed from the tables of the study, and every order of networks is the sentence of
`analysis.statistics.conclusions`. In the words, `[@key]` is a reference and `[fig:id]` a figure of the article.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from analysis.tables.formats import display_name, listed, number, part_name, percent, short


@dataclass(frozen=True)
class Plate:
    """A figure that the article asks for: the step that left it, how its file may be called, and its own words."""

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
    """The chapters that the study allows, and what is missing of the others: title -> gap."""

    chapters: tuple[Chapter, ...]
    missing: Mapping[str, Gap] = field(default_factory=dict)

    @property
    def n_words(self) -> int:
        return sum(len(words.split()) for chapter in self.chapters for words in (chapter.finding, *chapter.text))


def article(study: Study) -> Article:
    """All chapters, in the order of the findings."""
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
        "The number in the name of a ResNet counts the weighted layers on its main path [@he2016]. The names of "
        "Residual "
        "Attention Networks follow the same rule for the trunk alone and leave the masks out [@wang2017]."
    ]
    if plain:
        text[0] += f" In {len(plain)} of the {len(facts.table)} networks here the longest path is the trunk."
    others = [f"{display_name(n)} {row['longest_path']}" for n, row in deeper.items() if n != facts.subject]
    if others:
        text.append(f"Deeper than the trunk, too, is the longest path of {listed(others)}.")
    if facts.peer_words and facts.subject != PEER:
        text.append(f"{facts.peer_words} The first of these shares compares a part with a whole. [fig:named]")
    words = f"{name} has {longest - (claimed or trunk)} layers more than its name says" if longest > trunk else finding
    plate = Plate(
        "named", steps.DEPTH, ("depth_224", "depth_32"), words.rstrip("."),
        "Three bars for each network: the number in the name (hollow), the longest path, all weighted layers. Orange "
        "layers are in masks.",
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
        f"The modules of {name} are {listed(deep)} layers deep on their longest path, and {listed(trunk)} by the trunk"
    )
    finding = f"{where}: the further layers lie in the masks." if is_deeper else f"{where}."
    text = []
    if is_deeper:
        text.append(
            "With each pooling a mask has more units one after the other, so a mask at a large map is deeper than one "
            "at a small map. The trunk beside it always has the same number of units. [fig:where]"
        )
    rows = part(study.table, schemas.ARTICLE).facts
    if rows is not None and not rows.empty:
        text.append(
            "A well-known reading note on the paper gives the same depth to every module [@article2021]. "
            + sentences.article(rows, is_short=True)
        )
    plate = Plate(
        "where", steps.VARIANTS, (f"trunk_and_mask_{depth.depth(study).subject}",),
        f"The masks add {sum(m.extra for m in facts.modules)} layers to the trunk of {name}",
        "Length is layers, height is multiply-adds. The thin line is the longest path; pale layers are not on it.",
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
        f"Of the {of.longest} layers of the longest path of {name} the gradient passes {of.mean:.1f} on average, with "
        f"random weights; 90 % of its energy passes {of.low} to {of.high}."
    )
    where = "shorter" if of.mean < of.mean_of_paths else "longer"
    text = [
        "A residual unit can be passed along its identity path, so there are paths of all lengths, and most of the "
        "gradient flows through short ones [@veit2016]. Here it is measured over all paths at once. The mean path of "
        f"{name} has {of.mean_of_paths:.1f} layers, each path counted once; weighted by the gradient's energy it is "
        f"{where}. [fig:used]"
    ]
    others = [
        f"{display_name(n)} {found.mean:.1f} of {found.longest}"
        for n in networks if n != subject and (found := sentences.Spread.of(frame[frame["network"] == n]))
    ]  # fmt: skip
    if others:
        text.append(f"For other networks the mean is, in layers: {listed(others)}.")
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
        f"{display_name(str(row.network))} {_state(rows, row.network, 'before')} before and {row.mean:.1f} after"
        for row in rows[rows["state"] == "after"].itertuples()
    ]
    if not found:
        return []
    return [f"With training, on {listed(rows['dataset'].unique())}, the mean is, in layers: {listed(found)}."]


def _state(rows: pd.DataFrame, network: object, state: str) -> str:
    own = rows[(rows["network"] == network) & (rows["state"] == state)]["mean"]
    return f"{own.iloc[0]:.1f}" if len(own) else "not measured"


def _price(study: Study, title: str) -> Chapter:
    facts = cost.cost(study)
    name = display_name(facts.subject)
    shares = [facts.share(q) for q in ("params", "macs")]
    finding = f"{name} has {short(facts.total('params'))} parameters and {short(facts.total('macs'))} multiply-adds"
    if any(shares):
        finding += f"; the masks hold {percent(shares[0])} of the parameters and do {percent(shares[1])} of the work."
    else:
        finding += "."
    text = [
        "Parameters are those that the execution reads. Multiply-adds are those of convolutions and matrix "
        "products, for "
        "one image, without bias; print calls FLOPs sometimes this number and sometimes twice it."
    ]
    if facts.peer:
        text.append(
            f"{display_name(facts.peer)} takes {short(facts.total('params', facts.peer))} parameters and "
            f"{short(facts.total('macs', facts.peer))} multiply-adds: {name} costs "
            f"{percent(facts.total('params') / facts.total('params', facts.peer))} and "
            f"{percent(facts.total('macs') / facts.total('macs', facts.peer))} of it. [fig:price]"
        )
    checks = part(cost.crosscheck, study).facts
    if checks:
        tools = list(dict.fromkeys(str(row["tool"]) for row in checks))
        n_open = sum(row["unexplained"] != 0 for row in checks)
        word = f"{n_open} differences are unexplained" if n_open else "every difference is explained, to the last unit"
        text.append(f"{len(checks)} numbers were compared with those of {listed(tools)}; {word}.")
    plate = Plate(
        "price", steps.COST, ("cost_224", "cost_32"),
        f"Masks take {percent(shares[1])} of the multiply-adds of {name}" if any(shares) else f"What {name} costs",
        "Parameters and multiply-adds by role; a longer path costs less than it adds in depth, since masks work on "
        "small "
        "maps.",
    )  # fmt: skip
    return Chapter("price", title, finding, tuple(text), (plate,))


def _sight(study: Study, title: str) -> Chapter:
    facts = receptive_field.receptive_field(study)
    name, stages = display_name(facts.subject), facts.table[facts.subject]
    first, last = next(iter(stages.values())), facts.last
    rows = study.table(schemas.RECEPTIVE_FIELD)
    own = rows[rows["network"] == facts.subject]
    if first.get("mask") and last.get("mask"):
        finding = (
            f"With its masks a unit at the end of stage 1 of {name} sees {number(first['mask'])} px in place of "
            f"{number(first.get('trunk'))}; at the last stage {number(last['mask'])} px in place of "
            f"{number(last.get('trunk'))}."
        )
    else:
        finding = f"A unit at the last stage of {name} sees {number(last.get('trunk'))} px."
    text = [
        "The receptive field is the square of the input that can change one unit, counted exactly for every position "
        "[@araujo2019] on an input large enough that no border clips it."
    ]
    uneven = own[own["least"] < own["value"]]
    if len(uneven):
        row = uneven.iloc[0]
        text.append(
            f"Up-sampling shifts positions against the map, so units of one layer may see squares of different "
            f"size: at the end of {str(row['stage']).replace('stage', 'stage ')} from {row['least']} to "
            f"{row['value']} px. Tables and curves give the largest; the drawing gives the central unit's. [fig:sight]"
        )
    effective = part(study.table, schemas.EFFECTIVE).facts
    if effective is not None and not effective.empty:
        text += _effective(effective)
    wider = first["mask"] / first["trunk"] if first.get("mask") and first.get("trunk") else None
    peak = f"Masks widen what stage 1 sees {wider:.1f} times" if wider else f"What {name} sees"
    plate = Plate(
        "sight", steps.RECEPTIVE_FIELD, (f"over_image_{facts.subject}", f"by_stage_{facts.subject}"), peak,
        "Squares that one central unit sees at the end of each stage, along the trunk alone and through the masks; the "
        "dashed square is the image that the network is given.",
    )  # fmt: skip
    return Chapter("sight", title, finding, tuple(text), (plate,))


def _effective(frame: pd.DataFrame) -> list[str]:
    kind = "trained" if (frame["weights"] == "trained").any() else "random"
    own = frame[(frame["weights"] == kind) & (frame["branch"] == "mask")]
    if own.empty:
        return []
    row = own.loc[own["support_px"].idxmax()]
    return [
        f"What can be seen is not what is used: with {kind} weights, in {part_name(str(row['module']))} of "
        f"{display_name(str(row['network']))}, 95 % of the gradient's energy of a mask lies within "
        f"{row['side_95_px']} px, "
        f"of {row['support_px']} px that reach it."
    ]


def _look(study: Study, title: str) -> Chapter:
    facts = masks.masks(study)
    data = listed(facts.datasets)
    if facts.findings:
        finding = facts.findings[0]
    else:
        after = [s for s in facts.scores if (s.map, s.state) == ("mask", "after") and s.by_stage]
        if not after:
            raise study.no_rows(schemas.MASKS)
        area = sum(after[0].by_stage.values()) / len(after[0].by_stage)
        finding = (
            f"The area under the ROC curve of the masks of {display_name(after[0].network)} is {area:.2f} on {data}."
        )
    text = [
        "A mask may be needed without outlining the object, and outline it without being needed. So the masks are "
        "replaced at test time, with the weights as they are, and they are compared with the true foreground, which is "
        f"known on {data}: an area under the ROC curve of 0.5 is no order, 1 a perfect outline."
    ]
    if facts.interventions:
        text.append(f"{facts.interventions[0]} [fig:replaced]")
    text += facts.kept
    nulls = [s for s in facts.scores if s.state == "after" and s.map in ("other image", "constant", "brightness")]
    if nulls:
        name = nulls[0].network
        said = [f"{s.map} {_mean(s.by_stage):.2f}" for s in nulls if s.network == name and s.by_stage]
        text.append(
            f"The same area for maps that do not use the image's own mask, for {display_name(name)}: {listed(said)}. "
            "A mask carries information only if its area is larger. [fig:look]"
        )
    plates = (
        Plate(
            "replaced", steps.MASKS, ("interventions",), _replaced_title(study),
            "Each dot is a run, each line a mean. Right of zero, the network is worse without its own mask.",
        ),
        Plate(
            "look", steps.MASKS, ("channels_auc", "scores_auc"), _area_title(facts),
            "Area under the ROC curve by stage. Lines are maps that do not use the image's own mask; 0.5 is no order.",
        ),
    )  # fmt: skip
    return Chapter("look", title, finding, tuple(text), plates)


def _mean(by_stage: Mapping[str, float]) -> float:
    return sum(by_stage.values()) / len(by_stage)


def _replaced_title(study: Study) -> str:
    means = part(study.table, schemas.INTERVENTION_MEANS).facts
    if means is None or means.empty:
        return "What is lost when masks are replaced"
    whole = means[(means["module"] == "all") & (means["norms"] == "as they are")]
    other = whole[whole["intervention"] == "another image's"]
    if other.empty:
        return "What is lost when masks are replaced"
    rises = [f"{row.mean:+.1f}" for row in other.itertuples()]
    return f"With the masks of other images the test error changes by {listed(rises)} points"


def _area_title(facts: masks.Masks) -> str:
    found = [f"{_mean(s.by_stage):.2f}" for s in facts.scores if (s.map, s.state) == ("mask", "after") and s.by_stage]
    return f"Masks against the true foreground: area {listed(found)}" if found else "Masks against the true foreground"


def _worth(study: Study, title: str) -> Chapter:
    trained = training.training(study)
    compared = part(study.table, schemas.DIFFERENCES).facts
    found = headline(compared) if compared is not None else ""
    images = training.images_words(trained.images)
    seeds = f"{trained.n_seeds} {'seed' if trained.n_seeds == 1 else 'seeds'}"
    budget = (
        f"{listed(trained.epochs)} {'epoch' if trained.epochs == (1,) else 'epochs'} on {images} of "
        f"{listed(trained.datasets)}, {seeds} each"
    )
    finding = f"{(found or training.pays(trained, None)).rstrip('.')} ({budget})."
    means = [f"{display_name(r.network)} {r.mean:.2f} %" for r in trained.results if not r.label_noise][:6]
    text = [
        "A fair rival is as deep, be it by the trunk or by the longest path. "
        + (f"Mean test errors after the last epoch: {listed(means)}." if means else "")
    ]
    if compared is not None and not compared.empty:
        text.append(" ".join(dict.fromkeys(compared["conclusion"])) + " [fig:worth]")
    words = found.partition(". ")[0].rstrip(".") if found else "Test errors of the networks"
    plate = Plate(
        "worth", steps.COMPARE, ("differences", "error_against_size"), words,
        "Each dot is a seed, each marker the mean, each bar a simultaneous 95 % interval; left of zero the first "
        "network "
        "has the lower error.",
    )  # fmt: skip
    return Chapter("worth", title, finding, tuple(text), (plate,))


QUESTIONED = ("t7.attention56.params", "t7.attentionnext56.params", "t7.attention92.params", "t7.attention56.flops")


def _print(study: Study, title: str) -> Chapter:
    facts = claims.claims(study)
    paper = [row for row in facts.rows if row["source"] == PAPER] or list(facts.rows)
    counts = {v: sum(row["verdict"] == v for row in paper) for v in dict.fromkeys(r["verdict"] for r in paper)}
    n_tested = len(paper) - counts.get(claims.NOT_TESTABLE, 0) - counts.get("built so", 0)
    wrong = sum(n for verdict, n in counts.items() if verdict in WRONG)
    whose = "of the paper" if paper[0]["source"] == PAPER else "in the ledger"
    finding = (
        f"Of {len(paper)} printed numbers and statements {whose}, {n_tested} can be tested by counting: "
        f"{counts.get('confirmed', 0)} are confirmed, {wrong} are off, contradict the paper itself or misquote a "
        f"source."
    )
    by_id = {row["id"]: row for row in facts.rows}
    if first := by_id.get(QUESTIONED[0]):
        finding += f" {_asked(first)}"
    asked = [_asked(by_id[id]) for id in QUESTIONED[1:] if id in by_id]
    text = [*([" ".join(asked)] if asked else [])]
    text.append(
        "A verdict is computed, not typed; the tolerance is half of the last printed digit. A number that was read "
        "into a spec and is read back from it is called built so, and confirms nothing."
    )
    if facts.reasons:
        why = listed(f"{n} ({reason})" for reason, n in facts.reasons.items())
        text.append(f"Of all {len(facts.rows)} claims in the ledger these were not tested: {why}.")
    return Chapter("print", title, finding, tuple(text))


WRONG = ("off", "contradicts itself", "misquotes")


def _asked(row: Mapping[str, str]) -> str:
    where = row["place"].partition(";")[0]
    what = display_name(row["subject"].split()[0])
    off = f" by {row['off_pct']} %" if row["off_pct"] else ""
    if row["verdict"] == "other definition":
        return f"{where} prints {row['printed']} for {what}, which holds by another definition only: {row['why']}."
    return f"{where} prints {row['printed']} for {what}: {row['verdict']}{off}, {row['measured']} is counted."


CHAPTERS: Mapping[str, Callable[[Study, str], Chapter]] = {
    "Named and really": _named,
    "Where the depth is": _where,
    "How much of it is used": _used,
    "What it costs": _price,
    "What it sees": _sight,
    "What masks do": _look,
    "Whether it pays": _worth,
    "What of the print holds": _print,
}

CHAPTER_IDS = ("named", "where", "used", "price", "sight", "look", "worth", "print")
CITED = (PAPER, "fwang91", "he2016", "he2016identity", "veit2016", "araujo2019", "article2021")


def references(study: Study, keys: Sequence[str] = CITED) -> list[Mapping[str, str]]:
    """Text and address of what the article refers to, in its order. Raises: MissingError."""
    rows = {row["source"]: row for row in study.rows(schemas.SOURCES)}
    found: list[Mapping[str, str]] = [rows[key] for key in keys if key in rows] or list(rows.values())
    if not found:
        raise study.no_rows(schemas.SOURCES)
    return found
