"""Datasets, and a plain training loop that goes on where it was interrupted."""
