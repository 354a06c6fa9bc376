"""Datasets, and a plain training loop: config.py says what to run, data.py on what, loop.py runs it."""
