"""The names of the notebooks, which are also those of a study's steps. Standard library only."""

from __future__ import annotations

START = "00_start"
VARIANTS = "10_variants"
DEPTH = "20_depth"
COST = "30_cost"
RECEPTIVE_FIELD = "40_receptive_field"
TRAIN = "50_train"
COMPARE = "60_compare"
PROTOCOL = "62_protocol"
TRAIN_DIGITS = "65_train_digits"  # runs of the notebook TRAIN on the built-in digits, whose foreground is known
MASKS = "70_masks"
RESPONSE = "75_response"
CLAIMS = "80_claims"
LAYOUTS = "85_which_network"
EXPLORE = "90_explore"

# What a complete study consists of; the report of a folder that holds less says what is missing.
COMPLETE = (VARIANTS, DEPTH, COST, RECEPTIVE_FIELD, TRAIN, COMPARE, MASKS, CLAIMS)
