"""The behaviour of trained networks."""
