"""The audit of public models: every architecture of the libraries of models that install, against independent counts,
published tables and gradients.

`python -m analysis.zoo` measures what has no row yet and writes the tables of `results/zoo/`; see `make zoo`.
"""
