"""Judges a table of printed numbers: each number gets a verdict, computed from counts of the networks it is about."""
