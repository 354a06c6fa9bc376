"""The vocabulary of the ledger: units, definitions, readings, and the reasons why a claim is not testable here.

A new way to count is a new row of this module. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from fractions import Fraction

from resattn.measures.quantities import QUANTITIES, SPLITS


@dataclass(frozen=True)
class Unit:
    """A printed unit: `factor`, times the base of thousands (1000 or 1024) to some power."""

    power: int = 0
    factor: Fraction = Fraction(1)


UNITS: Mapping[str, Unit] = {
    "": Unit(),
    "k": Unit(power=1),
    "M": Unit(power=2),
    "G": Unit(power=3),
    "%": Unit(factor=Fraction(1, 100)),
    **dict.fromkeys(
        ("layers", "units", "modules", "px", "channels", "epochs", "iterations", "images", "networks", "GB"), Unit()
    ),
}


# Why a claim is not tested here: the whole list.
NEEDS_IMAGENET = "needs ImageNet"
NEEDS_RECIPE = "needs that recipe"
ANOTHERS_NETWORK = "another's network"
NO_NUMBER = "no number"
REASONS = (NEEDS_IMAGENET, NEEDS_RECIPE, ANOTHERS_NETWORK, NO_NUMBER)


@dataclass(frozen=True)
class Definition:
    """One way to count a quantity. `formula` contains names of measured numbers of the row's subject, in braces."""

    quantity: str
    id: str
    formula: str
    text: str
    counts: str = ""  # mac or flop, where the word FLOPs would leave it open
    untestable: str = ""  # the reason why nothing here can measure it; there is no formula then
    reads: tuple[str, ...] = ()  # fields of a spec that it reads back: see `TYPED`


# The first word of a row is what is counted, the second is how. Other rows of the same quantity are what a reader may
# have meant instead, in the order in which they are tried.
COUNTED = (
    Definition("params", "learnable", "{params}", "learnable parameters that the execution reads"),
    Definition("params", "learnable_and_statistics", "{params} + {norm_statistics}",
               "learnable parameters and batch norm's running mean and variance (all of Caffe's blobs)"),
    Definition("params", "without_norm", "{params} - {params_norm}",
               "parameters of convolutions and matrix products only"),
    Definition("params", "defined", "{params} + {dead_params}", "every parameter created, executed or not"),
    Definition("params_mask", "mask", "{params_mask}", "learnable parameters of the mask branches"),
    Definition("params_mask", "mask_convolutions", "{params_conv_mask}", "the convolutions of the mask branches"),
    Definition("params_trunk", "outside_mask", "{params} - {params_mask}",
               "learnable parameters outside the mask branches"),
    Definition("params_trunk", "outside_mask_convolutions", "{params_conv} - {params_conv_mask}",
               "the convolutions outside the mask branches"),
    Definition("params_conv", "executed", "{params_conv}", "weights of the executed convolutions"),
    Definition("params_norm", "executed", "{params_norm}", "scale and shift of the executed normalisations"),
    Definition("params_linear", "executed", "{params_linear}", "weights and biases of the executed matrix products"),
    Definition("cost", "multiply_adds", "{macs}", "multiply-adds of convolutions and matrix products", "mac"),
    Definition("cost", "operations", "2 * {macs}", "multiplications and additions counted apart", "flop"),
    Definition("cost", "convolution_multiply_adds", "{macs} - {macs_linear}", "multiply-adds of convolutions", "mac"),
    Definition("cost_mask", "multiply_adds", "{macs_mask}", "multiply-adds of the mask branches", "mac"),
    Definition("cost_mask", "operations", "2 * {macs_mask}", "operations of the mask branches", "flop"),
    Definition("cost_trunk", "multiply_adds", "{macs} - {macs_mask}", "multiply-adds outside the mask branches", "mac"),
    Definition("cost_trunk", "convolution_multiply_adds", "{macs} - {macs_linear} - {macs_mask}",
               "multiply-adds of the convolutions outside the mask branches", "mac"),
    Definition("depth", "trunk", "{trunk_depth}", "weighted layers on the longest path when the masks are removed"),
    Definition("depth", "longest_path", "{longest_path}", "weighted layers on the longest path"),
    Definition("depth", "all_layers", "{weighted_layers}", "all weighted layers that are executed"),
    Definition("depth", "convolutions", "{conv_layers}", "all convolutions that are executed"),
    Definition("depth_ratio", "trunk", "{1:trunk_depth} / {2:trunk_depth}", "ratio of the trunk depths"),
    Definition("depth_ratio", "longest_path", "{1:longest_path} / {2:longest_path}", "ratio of the longest paths"),
    Definition("depth_ratio", "all_layers", "{1:weighted_layers} / {2:weighted_layers}",
               "ratio of all weighted layers"),
    Definition("params_ratio", "learnable", "{1:params} / {2:params}", "ratio of the learnable parameters"),
    Definition("cost_ratio", "multiply_adds", "{1:macs} / {2:macs}", "ratio of the multiply-adds", "mac"),
    Definition("receptive_field", "with_mask", "{receptive_field_px}",
               "with masks, if any, on an input so large that nothing is clipped"),
    Definition("receptive_field", "trunk", "{receptive_field_trunk_px}", "with the masks removed"),
    Definition("receptive_field", "least", "{receptive_field_least_px}",
               "with masks, if any, at the position that sees least"),
    Definition("dead_params", "defined", "{dead_params}", "parameters of modules that are defined and never executed"),
    Definition("module_depth", "longest_path", "{module_longest_path}",
               "convolutions on the longest path of the module"),
    Definition("module_depth", "trunk", "{module_trunk_path}", "convolutions on its path through the trunk branch"),
    Definition("mask_depth", "longest_path", "{mask_longest_path}",
               "convolutions on the longest path of the mask branch"),
    Definition("mask_depth", "all_layers", "{mask_conv_layers}", "all convolutions of the mask branch"),
    Definition("mask_units", "longest_path", "{mask_units_on_path}",
               "residual units on the longest path of the mask branch"),
    Definition("mask_units", "all_units", "{mask_units}", "all residual units of the mask branch"),
    Definition("mask_poolings", "defined", "{poolings}", "max poolings in each mask of the stage", reads=("poolings",)),
    Definition("trunk_units", "trunk", "{trunk_units}", "residual units outside the mask branches"),
    Definition("units_outside_modules", "trunk", "{units_outside_modules}",
               "residual units outside the attention modules", reads=("units",)),
    Definition("units", "inside", "{units_inside}", "residual units of the named part", reads=("p", "t", "r")),
    Definition("modules", "per_stage", "{modules}", "attention modules of the stage", reads=("modules",)),
    Definition("map_size", "side", "{map_size_px}", "side of the map that the named part gives", reads=("input_shape",),
               ),
    Definition(
        "channels", "out", "{out_channels}", "channels of the map that the named part gives", reads=("width", "classes")
    ),
    Definition("mask_least", "gate", "{mask_least}", "lower bound of the mask's values, for any input of its gate"),
    Definition("mask_most", "gate", "{mask_most}", "upper bound of the mask's values, for any input of its gate"),
    Definition("mask_norm", "over_channels", "{mask_norm}",
               "L2 norm of the mask over the channels of a position; no value if positions differ"),
    Definition("mask_logit_spread", "over_positions", "{mask_logit_spread}",
               "standard deviation of the mask's logits over the positions of a channel; no value if channels differ"),
)  # fmt: skip

# What a training run ends with. Given as a fraction, whatever the source prints.
TRAINED = {
    "cifar10_error": "error on the 10,000 test images of CIFAR-10",
    "cifar100_error": "error on the 10,000 test images of CIFAR-100",
    "cifar10_accuracy": "accuracy on CIFAR-10",
    "cifar100_accuracy": "accuracy on CIFAR-100",
    "cifar100_top5_error": "top-5 error on CIFAR-100",
    **{f"cifar10_error_noise{n}": f"error on CIFAR-10 after training with {n} % label noise" for n in (10, 30, 50, 70)},
    "imagenet_top1_error": "top-1 error on ImageNet's validation images, one crop",
    "imagenet_top5_error": "top-5 error on ImageNet's validation images, one crop",
    "imagenet_top1_accuracy": "top-1 accuracy on ImageNet's validation images, one crop",
    "imagenet_top5_accuracy": "top-5 accuracy on ImageNet's validation images, one crop",
    "kaggle_accuracy": "accuracy on the hidden test images of Kaggle's CIFAR-10",
    "stage_response": "mean absolute response of a stage's output over that of stage 1",
    "object_over_ground": "test error with the mask constant on the object, minus that on an equal area of background",
    "gradient_5_to_17_units": "share of the gradient's energy on paths through 5 to 17 units of two layers each",
}

# Of these a claim speaks of a trained network, not of the mean over such networks: each is judged by itself.
OF_EACH = frozenset({"gradient_5_to_17_units"})

# Where in a run the number was read off; the last epoch is not the best one.
EPOCHS = {"final_epoch": "at the last epoch", "best_epoch": "at the best epoch", "unstated": "at an epoch not stated"}

# What the formulas above may name besides the audit's own quantities; `resattn.claims.measured` has a row for each.
COUNTED_BESIDES = frozenset({
    *SPLITS, "units_inside", "module_longest_path", "module_trunk_path", "mask_longest_path", "mask_conv_layers",
    "mask_units", "mask_units_on_path", "poolings", "modules", "map_size_px", "out_channels",
    "receptive_field_least_px", "mask_least", "mask_most", "mask_norm", "mask_logit_spread",
})  # fmt: skip

# What no instrument of this suite measures: the text of its definition, and the reason.
STATED = {
    "recipe": ("a choice that the authors report: there is nothing to count", NO_NUMBER),
    "memory": ("memory of a training run on the authors' machine", NEEDS_RECIPE),
    "training_time_ratio": ("ratio of two training times, which the source does not report", NO_NUMBER),
    "degradation": ("error of stacked plain layers, for which the source gives no number", NO_NUMBER),
    "gradient_path": ("paths that carry almost all of the gradient, a share without a number", NO_NUMBER),
    "accuracy_gain": ("difference between two training runs of another author", NEEDS_RECIPE),
    "error_spread": ("standard deviation over training runs of another author", NEEDS_RECIPE),
}

DEFINITIONS = (
    *COUNTED,
    *(
        Definition(quantity, epoch, f"{{{quantity}_{epoch}}}", f"{text}, {when}")
        for quantity, text in TRAINED.items()
        for epoch, when in EPOCHS.items()
    ),
    Definition("=", "arithmetic", "", "what the formula gives for the numbers as printed"),
    Definition("=", "counted", "", "what the formula gives for counted numbers"),
    *(Definition(quantity, "stated", "", text, untestable=reason) for quantity, (text, reason) in STATED.items()),
)


TRAINING_RESULTS = frozenset(f"{quantity}_{epoch}" for quantity in TRAINED for epoch in EPOCHS)
MEASURABLE = frozenset(QUANTITIES) | COUNTED_BESIDES | TRAINING_RESULTS


@dataclass(frozen=True)
class Reading:
    """Values of spec fields that a source leaves open, as an alternative to the catalog's defaults.

    `source`: the only source whose rows may be read in this way; empty for every source.
    """

    networks: str
    settings: tuple[tuple[str, str], ...]
    evidence: str
    source: str = ""

    def is_open(self, network: str, source: str = "") -> bool:
        return fnmatchcase(network, self.networks) and self.source in ("", source)


# The released prototxts settle the ImageNet attention networks, so these have no open reading.
READINGS = (
    Reading(
        "cifar-attention*", (("poolings", "3,2,1"),),
        "the poolings of the ImageNet networks, kept on CIFAR (wang2017, section 4.1 names none)",
    ),
    Reading(
        "cifar-attention*", (("units", "2,2,2"), ("tail", "0,0,0")),
        "two residual units at each stage, taken literally (wang2017, section 4.1)",
    ),
    Reading(
        "cifar-attention*", (("poolings", "3,2,1"), ("units", "2,2,2"), ("tail", "0,0,0")),
        "both: ImageNet's poolings and two units at each stage",
    ),
    Reading("resnet*", (("stride_on", "1x1"),), "the stride in the first 1x1 of a bottleneck (he2016), or in its 3x3"),
    Reading(
        "resnet*", (("stride_at", "last"),),
        "the stride on the last unit of a stage, as in TF-slim, whose networks araujo2019 measured", "araujo2019",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Typed:
    """Fields of the catalog's networks that were set from a source. A count that only reads them back confirms nothing.

    `fitted`: definitions (`depth.trunk`) that the remaining fields were chosen to match.
    """

    networks: str
    source: str
    fields: frozenset[str]
    fitted: frozenset[str] = frozenset()

    def covers(self, network: str, source: str, way: Definition) -> bool:
        is_read = bool(way.reads) and set(way.reads) <= self.fields
        meant = self.source == source and fnmatchcase(network, self.networks)
        return meant and (is_read or f"{way.quantity}.{way.id}" in self.fitted)


TYPED = (
    # Table 2 gives the ImageNet networks; section 4.1 and table 6 give modules, p, t and r of the CIFAR networks, whose
    # units were chosen to give 36m + 20 layers. A local mask was given three units and an equal cost (table 4).
    Typed(
        "attention*", "wang2017",
        frozenset({"input_shape", "classes", "width", "units", "modules", "poolings", "p", "t", "r"}),
    ),
    Typed(
        "cifar-attention*", "wang2017", frozenset({"input_shape", "modules", "p", "t", "r"}),
        frozenset({"depth.trunk", "mask_units.all_units", "cost_ratio.multiply_adds"}),
    ),
    Typed(
        "attention*", "fwang91",
        frozenset({"input_shape", "classes", "width", "units", "modules", "poolings", "p", "t", "r"}),
    ),
)  # fmt: skip

# Networks that sources speak of and that cannot be counted here: the reason is ANOTHERS_NETWORK, in more words.
FOREIGN: Mapping[str, str] = {
    name: why
    for why, names in (
        (
            "its structure was never published, and a reading of ours cannot test its numbers",
            "attentioninception56",
        ),
        (
            "a network of another paper, not in the catalog",
            "wrn-28-10-dropout inception-resnet-v1 inception-resnet-v2 cifar-resnet18",
        ),
        (
            "a port that is not in the catalog",
            "port:pistony:cifar-attention452 port:phamquiluan:attention56 port:haoxintong:cifar-attention56 "
            "port:haoxintong:cifar-attention92 port:koichiro11:cifar-attention "
            "port:weiaicunzai:attention59 port:weiaicunzai:attention92 port:qubvel:cifar-attention "
            "port:ondrejbiza:cifar-attention92 port:gargivaidya:cifar-attention92 port:jianghaojun:attention56 "
            "port:xinhuang09:cifar-attention56 port:xinhuang09:cifar-attention92 port:nerdecbm4040:attention56 "
            "port:nerdecbm4040:attention92 port:nerdecbm4040:attention128 port:nerdecbm4040:attention164 "
            "port:taniesta:attention56 port:facexzoo:attention56 port:facexzoo:attention92",
        ),
    )
    for name in names.split()
}  # fmt: skip
