"""The HTML report of a study: one folder that opens from disk and loads nothing from the network."""
