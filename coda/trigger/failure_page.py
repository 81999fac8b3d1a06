"""The page of a batch version whose run failed: no step got as far as the report, so the trigger says what it knows."""

import logging
from html import escape

from coda.errors import CodaError
from coda.trigger.ledger import Ledger, LedgerState

log = logging.getLogger(__name__)

NAME = "failure.html"
"""Name of the page in the version's folder of the ledger."""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>body{{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}}
td,th{{text-align:left;vertical-align:top;padding:.2em 1em .2em 0}}code{{background:#eee;padding:0 .2em}}</style>
</head><body><h1>{title}</h1>
<p>There are no new predictions of this batch, and no release was made by this run.</p>
<h2>Why</h2><ul>{reasons}</ul>
<h2>What to do</h2><p>{remedy}</p>
<h2>What happened</h2><table><tr><th>when (UTC)</th><th>state</th><th>try</th><th>why</th></tr>{rows}</table>
<p>Run {run}, manifest {digest}.</p></body></html>
"""


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
    remedy = f"When the reason is put right: <code>{escape(command)}</code>"
    if last.reopens:
        remedy = (
            f"Nothing: it is opened again by itself when runs go through. To have it at once: <code>{command}</code>"
        )
    rows = "".join(
        f"<tr><td>{item.at:%Y-%m-%d %H:%M:%S}</td><td>{escape(item.state)}</td><td>{item.attempt}</td>"
        f"<td>{escape(' '.join(item.reasons))}</td></tr>"
        for item in states[-50:]
    )
    return _PAGE.format(
        title=escape(f"{last.source}/{last.batch}: the run failed"),
        reasons="".join(f"<li>{escape(reason)}</li>" for reason in last.reasons),
        remedy=remedy, rows=rows, run=escape(last.run_id), digest=escape(last.manifest_digest),
    )  # fmt: skip
