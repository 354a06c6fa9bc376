"""The engine that judges a table of printed numbers."""
