"""What a person reads: the module tree and tables, as text, Markdown, LaTeX, CSV and HTML."""
