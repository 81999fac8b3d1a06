"""Answers of other services, judged by their shape: is it the service at all, and who must act when it is not?

A sign-in page, a refusing gateway or a stranger on the port answers like a service, and often with status 200.
Nothing is gained by asking again, and nothing may be counted against a batch: the operator must act.
"""

import json
import re

from coda.errors import CodaError, Problem, ServiceRefusedError, TransientError
from coda.settings import without_secrets

_PAGE = re.compile(r"^\s*<|text/html", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)


def judged(service: str, setting: str, where: str, status: int, kind: str, body: str) -> CodaError | None:
    """Return what is wrong with an answer that should be JSON, or none when the service itself gave it.

    Returns:
        TransientError: The service, or what is before it, is overloaded or failing.
        ServiceRefusedError: Something else answered, or nobody is let in.
    """
    said = f"HTTP {status}, {_in_words(kind, body)}"
    if status == 429 or status >= 500:
        problem = Problem(where, said, "an answer", "Try again later; if it lasts, read the server's log.")
        return TransientError(f"{service} does not answer.", [problem])
    if status in {401, 403, 407}:
        remedy = "Give this identity its rights and credentials (docs/settings.md)."
        return ServiceRefusedError(f"{service} lets nobody in.", [Problem(where, said, "an answer", remedy)])
    if _is_object(body) and not _PAGE.search(kind) and not 300 <= status < 400:
        return None
    remedy = f"Let {setting} name the service itself, past any sign-in page; check its credentials (docs/settings.md)."
    problem = Problem(where, said, f"an answer of {service} in JSON", remedy)
    return ServiceRefusedError(f"Something else answers in place of {service}.", [problem])


def _is_object(body: str) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except ValueError:
        return False


def _in_words(kind: str, body: str) -> str:
    title = _TITLE.search(body)
    if _PAGE.search(kind) or _PAGE.search(body):
        return f"a page {' '.join(title[1].split())!r}"[:120] if title else "a page of HTML"
    return without_secrets(" ".join(body.split()))[:200] or "an empty answer"
