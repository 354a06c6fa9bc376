"""Comparison of networks: matching, layouts, the census, differences of audits."""
