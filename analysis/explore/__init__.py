"""The explorer: counts of a network while its settings change."""
