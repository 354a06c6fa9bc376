"""What runs allow to conclude: intervals, comparisons of several networks, equivalence."""
