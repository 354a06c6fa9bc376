"""Differences between series of runs, and how sure they are."""
