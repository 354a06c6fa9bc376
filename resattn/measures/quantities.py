"""The vocabulary of numbers: every quantity's name, unit and definition, once. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quantity:
    id: str
    unit: str
    label: str
    definition: str


QUANTITIES: dict[str, Quantity] = {
    q.id: q
    for q in (
        Quantity("claimed_depth", "layers", "Claimed depth", "the number in the name"),
        Quantity(
            "weighted_layers", "layers", "Weighted layers",
            "executed convolutions and matrix products with parameters; a module run twice is two",
        ),
        Quantity("conv_layers", "layers", "Convolutions", "executed convolutions"),
        Quantity("conv_layers_trunk", "layers", "Convolutions, trunk", "those outside mask and shortcut"),
        Quantity("conv_layers_mask", "layers", "Convolutions, mask", "those in a mask branch"),
        Quantity(
            "conv_layers_shortcut", "layers", "Convolutions, shortcut",
            "projections on the identity path of a residual unit",
        ),
        Quantity(
            "trunk_depth", "layers", "Trunk depth", "most weighted layers on any path when the masks are removed"
        ),
        Quantity("longest_path", "layers", "Longest path", "most weighted layers on any path from input to output"),
        Quantity("shortest_path", "layers", "Shortest path", "fewest weighted layers on any path from input to output"),
        Quantity(
            "n_paths", "paths", "Paths",
            "paths from input to output; the merge is T + M*T, and a gate's input counts as a path",
        ),
        Quantity("mean_path_length", "layers", "Mean path length", "weighted layers, each path weighing the same"),
        Quantity("params", "parameters", "Parameters", "parameters that the execution reads, a shared one once"),
        Quantity("params_mask", "parameters", "Parameters, mask", "those that a mask branch reads"),
        Quantity(
            "macs", "multiply-adds", "Multiply-adds",
            "of convolutions and matrix products, bias excluded, batch 1",
        ),
        Quantity("macs_mask", "multiply-adds", "Multiply-adds, mask", "those in a mask branch"),
        Quantity("flops", "FLOPs", "FLOPs", "2 * multiply-adds"),
        Quantity(
            "receptive_field_px", "px", "Receptive field",
            "side of the input square seen by a unit of the last feature map before global pooling, nothing clipped",
        ),
        Quantity("receptive_field_h_px", "px", "Receptive field, height", "the same, vertically"),
        Quantity("receptive_field_w_px", "px", "Receptive field, width", "the same, horizontally"),
        Quantity(
            "receptive_field_trunk_px", "px", "Receptive field, trunk", "the receptive field when the masks are removed"
        ),
        Quantity(
            "receptive_field_narrowest_px", "px", "Receptive field, narrowest path",
            "the receptive field along the one path to such a unit that sees least",
        ),
        Quantity(
            "receptive_field_widest_px", "px", "Receptive field, widest path",
            "the receptive field along the one path to such a unit that sees most",
        ),
        Quantity("dead_layers", "layers", "Dead layers", "weighted modules defined but never executed"),
        Quantity("dead_params", "parameters", "Dead parameters", "parameters defined but never read"),
        Quantity("defined_params", "parameters", "Defined parameters", "all parameters, read or not"),
    )
}  # fmt: skip
