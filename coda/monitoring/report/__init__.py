"""The report of one run: a single HTML file for people who are no programmers, readable without a network.

The verdict stands first in one sentence; then what arrived, what failed and what to do, pictures, the decision, the
predictions, drift, and where everything comes from.
"""

from coda.monitoring.inputs import ReportInputs, gather
from coda.monitoring.report.lead_sentences import Headline, headline
from coda.monitoring.report.report_page import Page, write_page, write_report

__all__ = ["Headline", "Page", "ReportInputs", "gather", "headline", "write_page", "write_report"]
