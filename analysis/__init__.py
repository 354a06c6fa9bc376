"""Depth, paths, cost and receptive field of any torch model, from one capture of what it executes."""
