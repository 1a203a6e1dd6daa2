"""Budget reports: what was spent on a dataset and what is left, for the people who govern the data.

    document = hushgrad.report.build(Ledger("hushgrad.ledger.db"), dataset="ward-7")
    page = hushgrad.report.render(document, format="html")
    verdict = hushgrad.report.verify_report("report.html", key="clinic.pem")

Works without torch. Nothing un-noised (batch sizes, gradient norms, losses) is part of a report.
"""

from hushgrad.report.build import build
from hushgrad.report.render import render
from hushgrad.report.verify import Verification, verify_report

__all__ = ["Verification", "build", "render", "verify_report"]
