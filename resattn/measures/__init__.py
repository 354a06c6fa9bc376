"""Quantities of a captured network: depth, paths, cost, roles and receptive fields."""
