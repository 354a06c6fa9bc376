"""Datasets, and a plain training loop that resumes after an interruption."""
