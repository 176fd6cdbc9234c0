"""One self-contained HTML page out of run.json files."""

from roadworthy.report.page import write_report

__all__ = ["write_report"]
