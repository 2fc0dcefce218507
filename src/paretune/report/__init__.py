"""The report stage: reads a run's tables, writes report.html (one file, no network) and plots/.

`write_report(run_folder)` makes the page; `front_figure(summary)` is the picture for a README.
"""

from .comparison import write_comparison
from .fronts import front_figure
from .page import write_report

__all__ = ["front_figure", "write_comparison", "write_report"]
