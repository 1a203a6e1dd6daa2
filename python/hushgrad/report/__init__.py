"""Budget reports: what was spent on a dataset and what is left, for the people who govern the data.

    document = hushgrad.report.build(Ledger("hushgrad.ledger.db"), dataset="ward-7")
    page = hushgrad.report.render(document, format="html")

Works without torch. Nothing un-noised (batch sizes, gradient norms, losses) is part of a report.
"""

from hushgrad.report.build import build
from hushgrad.report.render import render

__all__ = ["build", "render"]
