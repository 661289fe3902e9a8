"""The report of a run: what it gave, in words, numbers and pictures, and all that it was made from."""

from gebm.launch.report.build import build_report

__all__ = ["build_report"]
