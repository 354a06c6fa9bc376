"""The audit of public models: every architecture of the libraries that can be installed, against independent counts,
published tables and gradients.

`python -m analysis.zoo` measures every model that has no row yet and writes the tables of `results/zoo/`.
"""
