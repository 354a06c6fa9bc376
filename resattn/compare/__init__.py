"""Comparison of networks: matching, layouts, the census, and differences between audits."""
