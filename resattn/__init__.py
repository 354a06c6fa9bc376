"""Residual Attention Networks and their baselines, built from one spec by one builder (wang2017)."""

__version__ = "0.1.0"
