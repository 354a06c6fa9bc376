"""Statistics of training runs: intervals, comparisons of several networks, equivalence."""
