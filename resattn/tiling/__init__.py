"""Inference on tiles: the overlap that a network needs, the valid tile sizes, and what prevents tiling."""
