"""One self-contained HTML page out of run records."""
