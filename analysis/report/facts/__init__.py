"""What the pages say, read from the tables of a study: one module for each topic."""
