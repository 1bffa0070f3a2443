"""Reports: measured numbers to JSON, Markdown, a terminal table and one HTML page with pictures."""

from madtp.report.plot import check_plots
from madtp.report.report import Example, ExampleRow, write_report
from madtp.report.settings import settings
from madtp.report.table import markdown_table, rich_table
from madtp.report.view import patch_overlay, strip

__all__ = [
    "Example",
    "ExampleRow",
    "check_plots",
    "markdown_table",
    "patch_overlay",
    "rich_table",
    "settings",
    "strip",
    "write_report",
]
