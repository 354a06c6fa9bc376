"""The HTML report of a study: one folder that opens from disk and loads nothing from the network."""

from analysis.report.build import ReportError, build_report

__all__ = ["ReportError", "build_report"]
