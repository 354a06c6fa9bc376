"""Tables on disk with their provenance, and the frames that notebooks write."""
