"""Inference on tiles: how much overlap a network needs, which tiles are valid, and what forbids tiling."""
