"""What follows from a captured network: depth, paths, cost, roles and receptive fields."""
