"""The content of the pages, read from the tables of a study: one module for each topic."""
