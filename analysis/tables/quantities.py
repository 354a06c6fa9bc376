"""Quantities of training runs and of masks, in addition to those of a network. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping

from resattn.measures.quantities import QUANTITIES, Quantity

# Answers to "how deep is it?": the number in the name, what it counts, the longest path, all layers.
DEPTHS = ("claimed_depth", "trunk_depth", "longest_path", "weighted_layers")
COSTS = ("params", "macs", "flops")


def _by_id(*quantities: Quantity) -> Mapping[str, Quantity]:
    return {q.id: q for q in quantities}


RUN_QUANTITIES = _by_id(
    Quantity("test_error_pct", "%", "Test error", "wrong predictions on the test images after the last epoch"),
    Quantity("train_error_pct", "%", "Training error", "wrong predictions on the augmented images of the last epoch"),
    Quantity("elapsed_s", "s", "Training time", "wall clock of the epochs of one run, evaluation included"),
    Quantity("images_per_s", "images/s", "Training speed", "training images over the time of the training steps"),
    Quantity("s_per_epoch", "s", "Time of an epoch", "wall clock of an epoch, evaluation included"),
    Quantity("peak_memory_bytes", "bytes", "Peak memory", "of the accelerator; on a processor that of the process"),
    Quantity(
        "training_macs", "multiply-adds", "Training cost",
        "multiply-adds of an image, times the images of all epochs, times 3 for the forward and the backward pass",
    ),
)  # fmt: skip

# Scores of a map against the true foreground.
SCORES = _by_id(
    Quantity(
        "auc", "", "Area under the ROC curve",
        "chance that a pixel of the object has a higher value than one of the background, in one image; the mean over "
        "images",
    ),
    Quantity(
        "energy_share", "", "Share of energy on the object",
        "sum of squares over the object's pixels, of the sum over the image; the mean over images",
    ),
    Quantity("contrast", "", "Contrast", "mean over the object's pixels over the mean over all others, minus 1"),
)  # fmt: skip


def quantity(id: str) -> Quantity:
    """The quantity of a network or of a run. Raises: KeyError."""
    return RUN_QUANTITIES[id] if id in RUN_QUANTITIES else QUANTITIES[id]


def quantity_label(id: str) -> str:
    """The label of a quantity; the words of its id if it has none."""
    return QUANTITIES[id].label if id in QUANTITIES else id.replace("_", " ").capitalize()
