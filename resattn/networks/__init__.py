"""Residual Attention Networks and their baselines: a network is a frozen record, and one builder makes the module."""
