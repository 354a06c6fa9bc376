"""Tables on disk, where their numbers came from, and the frames that notebooks write."""
