"""The report: reads the tables of a run, and writes report.html (one file that needs no network) and plots/.

`write_report(run_folder)` makes the page; `front_figure(summary)` makes the picture for a README.
"""

from .comparison import write_comparison
from .fronts import front_figure
from .page import write_report

__all__ = ["front_figure", "write_comparison", "write_report"]
