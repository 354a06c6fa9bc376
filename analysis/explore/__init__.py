"""The explorer: what follows from a network's settings, while they move."""
