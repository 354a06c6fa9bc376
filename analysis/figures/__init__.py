"""Figures: each is a function of axes and a frame."""
