"""The page of a batch version whose run failed for good: what the trigger knows, which is every try of it.

What one try left (the steps that ended, the verdict) is on the page of the run (`coda.steps.conclude`).
"""

import logging

from coda.errors import CodaError
from coda.monitoring.plain_page import bullets, heading, paragraph, plain_page, table
from coda.trigger.ledger import Ledger, LedgerState

log = logging.getLogger(__name__)

NAME = "failure.html"
"""Name of the page in the version's folder of the ledger."""


def write_page(ledger: Ledger, failed: LedgerState) -> None:
    """Write the page beside the version's states; a page that cannot be written is a warning, and stops nothing.

    Args:
        ledger: The ledger.
        failed: The version's newest state.
    """
    try:
        body = page(ledger.states(failed.version)).encode()
        ledger.store.put(f"{failed.version.folder}/{NAME}", body, content_type="text/html; charset=utf-8")
    except CodaError as error:
        log.warning("The page of the failed run %s could not be written: %s", failed.run_id, error.message)


def page(states: tuple[LedgerState, ...]) -> str:
    """Return the page as HTML; all that others wrote is escaped."""
    last = states[-1]
    command = f"coda ledger retry {last.source}/{last.batch}"
    remedy = paragraph("When the reason is put right:", command)
    if last.reopens:
        remedy = paragraph("Nothing: it is opened again by itself when runs go through. To have it at once:", command)
    rows = [
        (f"{item.at:%Y-%m-%d %H:%M:%S}", item.state, str(item.attempt), " ".join(item.reasons)) for item in states[-50:]
    ]
    return plain_page(
        f"{last.source}/{last.batch}: the run failed",
        [
            paragraph("The run did not get to its report."),
            heading("Why"), bullets(last.reasons),
            heading("What to do"), remedy,
            heading("What happened"), table(("when (UTC)", "state", "try", "why"), rows),
            paragraph(f"Run {last.run_id}, manifest {last.manifest_digest}. What its steps left is on the page of the "
                      f"run, runs/{last.run_id}/failure.html of the platform bucket, where a step could be started."),
        ],
    )  # fmt: skip
