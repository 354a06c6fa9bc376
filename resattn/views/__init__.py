"""The module tree and tables as text, Markdown, LaTeX, CSV and HTML."""
