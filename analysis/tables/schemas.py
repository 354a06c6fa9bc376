"""The schema of every table that a notebook writes: columns, types, units. Standard library only.

The writer checks a frame against its schema, the reader takes types and defaults from it, the tests build their
tables from it, and `docs/reference/tables.md` prints it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from numbers import Integral
from typing import Any

from analysis.tables import steps
from resattn.training.config import EXECUTION, FIELDS

OF_QUANTITY = "the quantity of this name"
_REQUIRED = object()
# NumPy registers its numbers with these; an integer counts as no float.
_ABSTRACT = {str: str, int: Integral, float: float, bool: bool}


class SchemaError(ValueError):
    """A frame does not agree with its schema; the message names the columns."""


@dataclass(frozen=True)
class Column:
    """One column. A name may be a pattern (`*_matches`), for columns whose names depend on a notebook's parameters."""

    name: str
    kind: type  # str, int, float or bool
    meaning: str = ""
    unit: str = ""
    may_be_empty: bool = False
    default: Any = _REQUIRED  # the value in tables of an earlier version, which lack the column

    @property
    def may_lack(self) -> bool:
        return self.default is not _REQUIRED

    @property
    def is_pattern(self) -> bool:
        return "*" in self.name

    def holds(self, value: Any) -> bool:
        """Whether a non-empty value has the type of the column."""
        return isinstance(value, _ABSTRACT[self.kind]) and (self.kind is bool) is isinstance(value, bool)


@dataclass(frozen=True)
class Schema:
    """A table: its file's stem, its columns, the meaning of a row, and the notebook that writes it."""

    name: str
    columns: tuple[Column, ...]
    row: str = ""
    notebook: str = ""

    @property
    def file(self) -> str:
        return f"{self.name}.csv"

    @property
    def names(self) -> list[str]:
        """Names of the columns, without patterns."""
        return [column.name for column in self.columns if not column.is_pattern]

    @property
    def required(self) -> list[str]:
        return [column.name for column in self.columns if not column.is_pattern and not column.may_lack]

    def column(self, name: str) -> Column | None:
        """The column with this name, else the first pattern that matches it, else None."""
        exact = (column for column in self.columns if column.name == name)
        patterns = (column for column in self.columns if column.is_pattern and fnmatchcase(name, column.name))
        return next(exact, next(patterns, None))


def _quantity(id: str, unit: str, kind: type = int, **changes: Any) -> Column:
    """The column of a quantity; a test compares its unit with that of the quantity's row."""
    return replace(Column(id, kind, OF_QUANTITY, unit), **changes)


# -- columns that several tables have

NETWORK = Column("network", str, "name in the catalog, with its settings")
DATASET = Column("dataset", str, "name of the dataset and its source")
SEED = Column("seed", int, "seed of the run")
LABEL_NOISE = Column("label_noise", float, "share of wrong training labels", default=0.0)
STAGE = Column("stage", str, "`stem`, `stage1` ..., `head`")
MODULE = Column("module", str, "module path of the attention module")
ROLE = Column("role", str, "`trunk`, `mask` or `shortcut`")
BRANCH = Column("branch", str, "`mask`: with the masks; `trunk`: without them")
QUANTITY = Column("quantity", str, "id of the quantity")
LAYERS = Column("value", int, "number of layers", "layers")
UNIT = Column("unit", str, "unit of the values in this row", may_be_empty=True)
N_RUNS = Column("n", int, "number of runs")
LOW, HIGH = (
    Column(name, float, f"{end} end of the 95 % interval of the mean", "as the mean", may_be_empty=True)
    for name, end in (("low", "lower"), ("high", "upper"))
)
STATED = Column("stated", int, "number that the article gives", "layers")
NOTION = Column("notion", str, "notion of depth, by the id of its quantity")
ERROR = _quantity("test_error_pct", "%", float)
EPOCH_MEMORY = _quantity("peak_memory_bytes", "bytes", may_be_empty=True, default=None)
_LEDGER = {
    "id": Column("id", str, "id of the claim in the ledger"),
    "source": Column("source", str, "key of the source in the bibliography"),
    "place": Column("place", str, "table, figure or section of the source"),
    "quote": Column("quote", str, "words of the source, or the cell with its row and column", may_be_empty=True),
    "translation": Column("translation", str, "the quote in English, if it is in another language", may_be_empty=True),
    "subject": Column("subject", str, "network and settings that the claim is about", may_be_empty=True),
    "quantity": Column("quantity", str, "quantity in the ledger's vocabulary, or a formula"),
    "definition": Column("definition", str, "definition that the source uses", may_be_empty=True),
    "printed": Column("printed", str, "number as printed, with its unit"),
    "measured": Column("measured", str, "what is counted or measured, in the printed unit", may_be_empty=True),
    "verdict": Column("verdict", str, "verdict on the claim"),
    "off_pct": Column("off_pct", str, "per cent that print is above or below what was measured", may_be_empty=True),
    "reason": Column("reason", str, "why nothing was tested", may_be_empty=True),
    "definition_used": Column("definition_used", str, "definition under which the verdict holds", may_be_empty=True),
    "reading": Column("reading", str, "reading of the source under which the verdict holds", may_be_empty=True),
    "why": Column("why", str, "reason of the verdict", may_be_empty=True),
    "note": Column("note", str, "remark of the ledger", may_be_empty=True),
}  # fmt: skip


def _table(notebook: str, name: str, row: str, *columns: Column) -> Schema:
    return Schema(name, columns, row, notebook)


def _px(name: str, meaning: str) -> Column:
    return Column(name, int, meaning, "px")


def _path(name: str, meaning: str) -> Column:
    return Column(name, int, meaning, "layers")


# -- the tables, by the notebook that writes them

SPECS = _table(
    steps.VARIANTS, "specs", "one field of one spec", NETWORK, Column("field", str, "field of the spec"),
    Column("value", str, "its value as text", may_be_empty=True),
)  # fmt: skip
SUMMARY = _table(
    steps.VARIANTS, "summary", "one network", NETWORK,
    _quantity("weighted_layers", "layers", name="layers", meaning="the quantity `weighted_layers`"),
    _quantity("params", "parameters"), Column("params_torchinfo", int, "parameters by torchinfo", "parameters"),
    _quantity("macs", "multiply-adds"),
    Column("macs_torchinfo", int, "multiply-adds by torchinfo, which counts norms and biases too", "multiply-adds"),
)  # fmt: skip

DEPTH = _table(
    steps.DEPTH, "depth", "one notion of depth of one network", NETWORK, QUANTITY, replace(LAYERS, may_be_empty=True),
    UNIT,
)  # fmt: skip
STAGES = _table(
    steps.DEPTH, "stages", "the layers of one role that a stage adds to a notion of depth", NETWORK, STAGE, NOTION,
    ROLE, LAYERS,
)  # fmt: skip
MODULES = _table(
    steps.DEPTH, "modules", "one attention module", NETWORK, MODULE,
    _path("longest_path", "most weighted layers on any path through the module"),
    _path("trunk_path", "the same with the mask removed"), _path("branch_path", "those of the trunk branch alone"),
    _path("mask_path", "those of the mask branch alone"), _path("mask_layers", "all weighted layers of the mask"),
    _path("trunk_layers", "all others of the module"),
    replace(STATED, meaning="depth that the article gives to every module"),
)  # fmt: skip
ARTICLE = _table(
    steps.DEPTH, "article", "one step of the article's arithmetic; for networks after the first its sum alone",
    NETWORK, Column("step", str, "step of the article's arithmetic"), STATED,
    _path("counted", "number that is counted"), Column("holds", bool, "whether the two are equal"),
)  # fmt: skip
RATIOS = _table(
    steps.DEPTH, "ratios", "one notion of depth of two networks", QUANTITY,
    _path("network", "depth of the shorter network"), _path("baseline", "depth of the longer network"),
    Column("share", float, "the first over the second"),
    Column("share_of_name", float, "the first over the number in the name of the longer network"),
)  # fmt: skip
PATH_LENGTHS = _table(
    steps.DEPTH, "path_lengths", "all paths of one length", NETWORK, _path("length", "weighted layers on a path"),
    Column("n_paths", int, "number of such paths, exact", "paths"), Column("share", float, "share of all paths"),
)  # fmt: skip
PATH_SUMMARY = _table(
    steps.DEPTH, "path_summary", "one network", NETWORK, Column("n_paths", int, "number of paths, exact", "paths"),
    Column("mean_length", float, "mean length, each path with the same weight", "layers"),
    _path("low", "least length of the range"), _path("high", "largest length of the range"),
    Column("share_between", float, "share of the paths within the range, both ends included"),
)  # fmt: skip

COST = _table(
    steps.COST, "cost", "one quantity of the layers of one role", NETWORK, ROLE, QUANTITY,
    Column("value", int, "its value", "see `unit`"), UNIT,
)  # fmt: skip
CROSSCHECK = _table(
    steps.COST, "crosscheck", "one number of another instrument", NETWORK, Column("tool", str, "the other instrument"),
    Column("version", str, "its version"), QUANTITY, Column("definition", str, "what the instrument counts"),
    Column("reported", int, "its number"), Column("ours", int, "our number"),
    Column("difference", int, "its number minus ours"),
    Column("explained_by", str, "causes of the difference, each with its number", may_be_empty=True),
    Column("unexplained", int, "what no cause explains"),
    Column("uncounted", str, "operators that the instrument does not count", may_be_empty=True),
)  # fmt: skip
PUBLISHED = _table(
    steps.COST, "published", "one printed number of parameters, cost or depth",
    *(_LEDGER[name] for name in ("id", "source", "place", "subject", "quantity")),
    *(_LEDGER[name] for name in ("printed", "measured", "verdict", "why")),
)  # fmt: skip

RECEPTIVE_FIELD = _table(
    steps.RECEPTIVE_FIELD, "receptive_field", "the end of one stage along one branch", NETWORK, STAGE, BRANCH,
    _px("value", "largest side seen by a unit at the stage's end, over positions that see no border"),
    _px("least", "smallest side, over the same positions"),
    _px("low_px", "start of the central unit's square, from the middle of the input"), _px("high_px", "its end"), UNIT,
)  # fmt: skip
GRADIENT = _table(
    steps.RECEPTIVE_FIELD, "gradient", "the central unit at the end of one stage along one branch", NETWORK, STAGE,
    BRANCH, _px("low_px", "start of what the central unit sees, by intervals"),
    _px("high_px", "its end, by intervals"), _px("gradient_low_px", "its start, by the gradient"),
    _px("gradient_high_px", "its end, by the gradient"), _px("side_px", "side by intervals"),
    _px("gradient_side_px", "side by the gradient of a positive linear twin"),
    _px("central_low_px", "start of the central stretch that holds most of the twin's weight"),
    _px("central_high_px", "its end"), Column("agrees", bool, "whether both give the same start and end"),
)  # fmt: skip
EFFECTIVE = _table(
    steps.RECEPTIVE_FIELD, "effective", "one branch of one attention module with one kind of weights", NETWORK,
    Column("weights", str, "`random` or `trained`"),
    Column("n_seeds", int, "number of weights that the energy is averaged over"), MODULE,
    Column("branch", str, "`trunk` or `mask`"),
    _px("side_68_px", "side of the centred square with 68 % of the gradient's energy"),
    _px("side_95_px", "side of that with 95 %"),
    _px("support_px", "side of that outside of which the gradient is zero"),
    Column("in_trunk_side", float, "share within the square of `side_95_px` of the same module's trunk"),
)  # fmt: skip

EPOCHS = _table(
    steps.TRAIN, "epochs", "one epoch of one run", NETWORK, DATASET, SEED, LABEL_NOISE,
    Column("epoch", int, "number of the epoch, from 1"), Column("step", int, "training steps so far"),
    Column("lr", float, "learning rate of the last step"),
    Column("train_loss", float, "mean loss of the training steps"),
    Column("train_error_pct", float, "error on the augmented images of the epoch", "%"),
    Column("test_loss", float, "mean loss on the test images after the epoch"),
    Column("test_error_pct", float, "error on the test images after the epoch", "%"),
    Column("train_s", float, "wall clock of the training steps", "s"),
    Column("images_per_s", float, "training images over that time", "images/s"),
    Column("elapsed_s", float, "wall clock of the epoch, evaluation included", "s"), EPOCH_MEMORY,
)  # fmt: skip
RUN = _table(
    steps.TRAIN, "run", "one training run", NETWORK, DATASET, SEED, Column("epochs", int, "epochs of the run"),
    Column("images", int, "training images of an epoch"), LABEL_NOISE, ERROR, _quantity("train_error_pct", "%", float),
    _quantity("images_per_s", "images/s", float), _quantity("elapsed_s", "s", float), EPOCH_MEMORY,
    _quantity("params", "parameters"), _quantity("macs", "multiply-adds"),
    _quantity("claimed_depth", "layers", may_be_empty=True), _quantity("trunk_depth", "layers"),
    _quantity("longest_path", "layers"), _quantity("weighted_layers", "layers"),
    Column("batch_size", int, "images of a training step"),
    Column("precision", str, "number format of the training steps"), Column("device", str, "model of the device"),
    Column("weights_digest", str, "digest of the final weights"),
)  # fmt: skip
# What else a run follows from, as its record states it; of several numbers their JSON.
RECIPE = tuple(
    name for name in FIELDS
    if name not in EXECUTION and name not in ("spec", "dataset", "epochs", "images", "seed", "label_noise")
)  # fmt: skip
RUNS = _table(
    steps.COMPARE, "runs", "one training run", *RUN.columns,
    *(
        Column(name, str if FIELDS[name].type == "str" or isinstance(FIELDS[name].default, tuple)
               else type(FIELDS[name].default), FIELDS[name].metadata["doc"], may_be_empty=True, default=None)
        for name in RECIPE if RUN.column(name) is None
    ), _quantity("s_per_epoch", "s", float),
    _quantity("training_macs", "multiply-adds"),
)  # fmt: skip
# Of what runs a comparison is; other fields of the recipe are equal, too, or are each network's own.
BUDGET = (
    DATASET, Column("epochs", int, "epochs of the runs"), Column("images", int, "training images of an epoch"),
    LABEL_NOISE,
)  # fmt: skip
COMPARISON = _table(
    steps.COMPARE, "comparison",
    "one quantity of all runs of a network; a quantity that the runs did not record has no row", NETWORK, DATASET,
    LABEL_NOISE, QUANTITY, N_RUNS, Column("mean", float, "mean of the runs", "see `unit`"), LOW, HIGH,
    Column("least", float, "smallest value of a run", "see `unit`"),
    Column("largest", float, "largest value of a run", "see `unit`"), UNIT,
)  # fmt: skip
DIFFERENCES = _table(
    steps.COMPARE, "differences",
    "one network beside its reference; a negative mean: the reference has the lower error", NETWORK,
    Column("reference", str, "network that it is compared with"), *BUDGET,
    Column("n", int, "number of seeds that all networks of the budget share"),
    Column("mean", float, "mean test error of the reference minus that of the network", "percentage points", True),
    *(Column(name, float, f"{end} end of the simultaneous 95 % interval", "percentage points", may_be_empty=True)
      for name, end in (("low", "lower"), ("high", "upper"))),
    Column("p_value", float, "adjusted for all comparisons", may_be_empty=True), UNIT,
    Column("order", str, "is the reference's error `lower` or `higher`; empty: not shown", may_be_empty=True),
    Column("conclusion", str, "what the runs allow to conclude"), Column("scope", str, "model and budget"),
    Column("equivalence", str, "whether the two are equal within the margin"),
)  # fmt: skip
PRINTED_BESIDE = _table(
    steps.COMPARE, "published", "one printed result of a network that was trained", _LEDGER["id"], NETWORK,
    LABEL_NOISE, Column("printed", float, "printed test error", "%"),
    Column("ours", float, "mean test error of our runs", "%"), LOW, HIGH, N_RUNS,
    Column("difference", str, "how our recipe differs from the printed one"),
)  # fmt: skip

SWEEP = _table(
    steps.PROTOCOL, "sweep", "one run of the protocol's sweep of learning rates", NETWORK,
    Column("lr", float, "largest learning rate of the run"), SEED,
    Column("error_pct", float, "error on the held-out training images", "%", may_be_empty=True),
    Column("diverged", bool, "whether the loss stopped being a number"),
    Column("chosen", bool, "whether the rule of the protocol chose this rate for the network"),
)  # fmt: skip
EXPECTED = _table(
    steps.PROTOCOL, "expected", "one expectation of the protocol",
    Column("expected", str, "what was expected before the first run"),
    Column("came_out", str, "what came out, or how many seeds are complete"),
)  # fmt: skip
BUDGETS = _table(
    steps.PROTOCOL, "budgets", "one run of a budget whose seeds are complete", NETWORK,
    Column("epochs", int, "epochs of all training images, a schedule of its own"), SEED,
    Column("lr", float, "largest learning rate of the run"), ERROR, _quantity("training_macs", "multiply-adds"),
    _quantity("elapsed_s", "s", float, may_be_empty=True),
)  # fmt: skip

MASKS = _table(
    steps.MASKS, "masks", "one score of one map; the error is that of the trained network in both states", NETWORK,
    DATASET, SEED, ERROR, Column("state", str, "`before` or `after` training"), MODULE, STAGE,
    Column("map", str, "`mask`, `trunk`, `output`, `random`, or a baseline: `other image`, `constant`, `brightness`"),
    QUANTITY,
    Column("value", float, "the score", may_be_empty=True),
)  # fmt: skip
CHANNELS = _table(
    steps.MASKS, "channels", "one channel of one mask, after training", NETWORK, DATASET, SEED, MODULE, STAGE,
    Column("channel", int, "index of the channel"),
    Column("auc", float, "area under the ROC curve against the true foreground, the mean over images"),
    Column("mean_map_share", float, "share of the mask's variance that its mean over channels holds"),
)  # fmt: skip
GAINS = _table(
    steps.MASKS, "gains", "one stage of one run, the mean over its modules", NETWORK, STAGE, SEED,
    Column("over_trunk", float, "score of the trained mask minus that of the trunk", may_be_empty=True),
    Column("over_before", float, "the same minus that of the mask before training", may_be_empty=True),
)  # fmt: skip
INTERVENTIONS = _table(
    steps.MASKS, "interventions", "one intervention on the masks of one run", NETWORK, DATASET, SEED,
    Column("n_images", int, "test images, the first of the set"),
    Column("intervention", str, "what replaces the mask; `none` for the network as it is"),
    Column("module", str, "module path of the attention module, or `all`"),
    Column("norms", str, "statistics of the batch norms: `as they are` or `re-estimated` with the masks replaced"),
    ERROR, Column("change", float, "error minus that without an intervention, norms alike", "percentage points"),
)  # fmt: skip
INTERVENTION_MEANS = _table(
    steps.MASKS, "intervention_means", "one intervention on the masks of one network", NETWORK, DATASET,
    INTERVENTIONS.columns[4], INTERVENTIONS.columns[5], INTERVENTIONS.columns[6], N_RUNS,
    replace(ERROR, meaning="mean over the runs"),
    Column("mean", float, "mean change of the error over the runs", "percentage points"), LOW, HIGH,
    Column("least", float, "smallest change of a run", "percentage points"),
    Column("largest", float, "largest change of a run", "percentage points"),
)  # fmt: skip
REPLACED_MASKS = replace(
    INTERVENTION_MEANS, name="replaced_masks", notebook=steps.PROTOCOL,
    columns=(*INTERVENTION_MEANS.columns, Column("epochs", int, "epochs of the runs")),
)  # fmt: skip
LESIONS = replace(INTERVENTIONS, name="lesions", row="one residual unit that one run lacks at test time")
PATHS = Column("paths", str, "`all`, or those `past the masks`")
LENGTH = Column("length", int, "weighted layers on the path", "layers")
_SHARES = (
    Column("share", float, "share of the gradient's energy, the mean over images"),
    Column("share_of_paths", float, "share of the number of paths"),
)
USED_UNTRAINED = _table(
    steps.DEPTH, "used_untrained", "one path length of one network with random weights", NETWORK, LENGTH, *_SHARES
)
USED = _table(
    steps.MASKS, "used_depth", "one path length of one run", NETWORK, DATASET, SEED, INTERVENTIONS.columns[3],
    Column("state", str, "`before` or `after` training"), PATHS, LENGTH,
    *_SHARES,
)  # fmt: skip
USED_MEANS = _table(
    steps.MASKS, "used_depth_means", "one network before or after training", NETWORK, DATASET,
    Column("state", str, "`before` or `after` training"), PATHS, N_RUNS,
    Column("mean", float, "mean length of the gradient over lengths and runs", "layers"), LOW, HIGH,
    Column("least", float, "smallest mean of a run", "layers"),
    Column("largest", float, "largest mean of a run", "layers"),
    Column("from_length", int, "length below which 5 % of the energy is", "layers"),
    Column("to_length", int, "length up to which 95 % of the energy is", "layers"),
    Column("mean_of_paths", float, "mean length of the paths", "layers"),
    Column("longest", int, "longest path", "layers"),
)  # fmt: skip
RESPONSES = _table(
    steps.RESPONSE, "responses", "one place in one stage of one run", NETWORK, DATASET, SEED,
    Column("place", str, "where the response is read"), STAGE,
    Column("response", float, "mean absolute response over images, channels and positions"),
    Column("relative", float, "that over the response of stage 1"),
)  # fmt: skip

MEASURED = _table(
    steps.CLAIMS, "measured", "one number of one run that a claim asks for",
    Column("subject", str, "network in the ledger's words"), _LEDGER["quantity"], SEED,
    Column("value", float, "value of the run", "of the ledger's quantity"),
    Column("budget", str, "epochs, images, batch size, width and data of the run"),
    Column("width", int, "channels of the first stage"),
    Column("is_recipe", bool, "whether the run followed the printed recipe"),
    Column("near_chance", bool, "whether the network's mean error is near chance level", default=False),
    Column("untrained", float, "the same with random weights, where it was measured", "of the ledger's quantity",
           may_be_empty=True, default=float("nan")),
)  # fmt: skip
ORDERS = replace(DIFFERENCES, notebook=steps.CLAIMS, name="orders", row="one pair of networks that runs may order")
CLAIMS = _table(
    steps.CLAIMS, "claims", "one claim of the ledger", *_LEDGER.values(),
)  # fmt: skip
SOURCES = _table(
    steps.CLAIMS, "sources", "one source of a claim", _LEDGER["source"],
    Column("text", str, "authors, title, year and remarks"),
    Column("url", str, "address on the web", may_be_empty=True),
)  # fmt: skip
LAYOUTS = _table(
    steps.LAYOUTS, "layouts", "one layout of the CIFAR networks", Column("width", int, "channels of the first stage"),
    Column("poolings", str, "poolings of each stage"), Column("extra_units", str, "where further units stand"),
    Column("bottom", int, "units at the smallest map"), Column("skip", str, "skip connections of the masks"),
    Column("outputs", int, "1x1 convolutions at the end of a mask"),
    Column("counts_norm", bool, "whether the statistics of norms count as parameters"),
    Column("follows_release", bool, "whether the layout follows the released files"),
    Column("*_matches", bool, "for each network: whether the count rounds to the printed number"),
    Column("*", int, "for each network, under its name: its parameters", "parameters"),
    Column("n_matches", int, "number of printed numbers that are met"),
    Column("worst_miss_m", float, "largest difference to a printed number", "millions of parameters"),
)  # fmt: skip
STATE = _table(
    steps.EXPLORE, "state", "one quantity of the network that is shown", NETWORK, QUANTITY,
    Column("value", int, "its value", "see `unit`"), UNIT,
)  # fmt: skip

SCHEMAS = (
    SPECS, SUMMARY, DEPTH, STAGES, MODULES, ARTICLE, RATIOS, PATH_LENGTHS, PATH_SUMMARY, COST, CROSSCHECK, PUBLISHED,
    RECEPTIVE_FIELD, GRADIENT, EFFECTIVE, EPOCHS, RUN, RUNS, COMPARISON, DIFFERENCES, PRINTED_BESIDE, SWEEP, BUDGETS,
    EXPECTED, REPLACED_MASKS, MASKS, CHANNELS, GAINS, INTERVENTIONS, INTERVENTION_MEANS, LESIONS, USED_UNTRAINED, USED,
    USED_MEANS, RESPONSES, MEASURED, ORDERS, CLAIMS, SOURCES, LAYOUTS, STATE,
)  # fmt: skip


def by_notebook() -> Mapping[str, tuple[Schema, ...]]:
    """Notebook -> the schemas of the tables that it writes."""
    return {
        name: tuple(s for s in SCHEMAS if s.notebook == name) for name in dict.fromkeys(s.notebook for s in SCHEMAS)
    }


def schema_of(file: str) -> Schema:
    """The schema of a table by its file's name. Raises: SchemaError if there is none, or more than one."""
    fitting = [schema for schema in SCHEMAS if schema.file == file]
    if len(fitting) != 1:
        which = f"{len(fitting)} tables have" if fitting else "no table has"
        raise SchemaError(f"{which} the file name {file}; give write_table the schema (see analysis/tables/schemas.py)")
    return fitting[0]
