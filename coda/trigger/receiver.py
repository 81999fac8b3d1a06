"""The operator's receiver of notifications: what is configured of it, and one signed delivery.

The address is as secret as the key: of most chats, whoever knows it may write there. Neither gets into logs, errors,
records or the environment of runs.
"""

import ipaddress
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from http.client import HTTPException
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

import coda
from coda.contracts import Notification
from coda.errors import ConfigError, Problem, raise_if_any
from coda.settings import HIDDEN, is_address
from coda.trigger.authentication import SIGNATURE_HEADER, TIMESTAMP_HEADER, secrets_of, sign

URL = "CODA_NOTIFY_URL"
KEY = "CODA_NOTIFY_KEY"
ON = "CODA_NOTIFY_ON"
SITE = "CODA_SITE_URL"
"""Variables; the key's, with ``_FILE`` after it, the file that holds it."""

KINDS = ("refused", "held", "failed", "drift")

TIMEOUT_S = 10.0
"""Seconds that a receiver gets to connect, and again for each part of its answer."""

MOST_WORDS = 200
"""Characters of an answer that are told."""


@dataclass(frozen=True)
class Receiver:
    """Where notifications go.

    Attributes:
        url: Address they are posted to.
        key: Signs them.
        on: Kinds that are told.
        site_url: Public address of the trigger's pages, without a slash at its end; empty where there is none.
    """

    url: str = field(repr=False)
    key: bytes = field(repr=False)
    on: tuple[str, ...] = KINDS
    site_url: str = ""

    @property
    def host(self) -> str:
        """The part of the address that may be shown."""
        return urlsplit(self.url).hostname or ""


@dataclass(frozen=True)
class Answer:
    """What became of one delivery.

    Attributes:
        status: HTTP status; None where no answer came.
        words: Begin of the answer's body, or why there was none.
    """

    status: int | None
    words: str

    @property
    def taken(self) -> bool:
        """Whether the receiver has the notification."""
        return self.status is not None and HTTPStatus(200) <= self.status < HTTPStatus.MULTIPLE_CHOICES

    def __str__(self) -> str:
        """Return it as text."""
        return f"{self.status} {self.words}".strip() if self.status is not None else f"no answer: {self.words}"


def read_site_url(environment: Mapping[str, str]) -> str:
    """Return the address at which people reach the trigger's pages, without a slash at its end; empty if unset.

    Raises:
        ConfigError: It is no address.
    """
    problems: list[Problem] = []
    site = _site(environment.get(SITE, ""), problems)
    raise_if_any(ConfigError, "The address of the pages is not configured as it must be.", problems)
    return site


def _site(text: str, problems: list[Problem]) -> str:
    site = text.strip()
    if site and (not is_address(site) or "@" in site or "?" in site or "#" in site):
        expected = "the address at which people reach the trigger's pages, as https://coda.example.org"
        problems.append(Problem(SITE, f"{len(site)} characters that are no such address", expected, f"Correct {SITE}."))
    return site.rstrip("/")


def read_receiver(environment: MutableMapping[str, str]) -> Receiver | None:
    """Read what is configured, and take it out of the environment, which every run inherits.

    Args:
        environment: Variables; values are removed from it.

    Returns:
        None where no receiver is configured.

    Raises:
        ConfigError: A variable cannot be used; all of them together, and none with its value where that is secret.
    """
    problems: list[Problem] = []
    url, on, where = (environment.pop(name, "").strip() for name in (URL, ON, SITE))
    keys = secrets_of(KEY, environment, problems)
    if not url and not keys and not problems:
        return None
    wrong = _wrong(url)
    if wrong:
        expected = "an https address, or an http address of this machine (127.0.0.1, localhost)"
        problems.append(Problem(URL, wrong, expected, f"Set {URL} to the address that the receiver shows you."))
    if len(keys) != 1 and not any(item.where.startswith(KEY) for item in problems):
        remedy = "Make one: head -c 32 /dev/urandom | base64. The receiver checks signatures with it, if it can."
        problems.append(Problem(f"{KEY}, {KEY}_FILE", f"{len(keys)} keys", "one key that signs", remedy))
    kinds = tuple(dict.fromkeys(part.strip() for part in on.split(",") if part.strip())) or KINDS
    if not set(kinds) <= set(KINDS):
        remedy = f"Name what to notify of, or unset {ON} for all."
        problems.append(Problem(ON, ", ".join(sorted(set(kinds) - set(KINDS))), f"some of {','.join(KINDS)}", remedy))
    site = _site(where, problems)
    raise_if_any(ConfigError, "The receiver of notifications is not configured as it must be.", problems)
    return Receiver(url, keys[0], kinds, site)


def send(receiver: Receiver, note: Notification) -> Answer:
    """Deliver one notification; redirects are not followed, and what goes wrong is an answer, never an exception."""
    body, at = note.to_json().encode(), int(time.time())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"coda/{coda.__version__}",
        TIMESTAMP_HEADER: str(at),
        SIGNATURE_HEADER: f"sha256={sign(receiver.key, at, body)}",
    }
    # a proxy of the environment is for addresses outside; what is http is on this machine
    proxies = [ProxyHandler({})] if receiver.url.startswith("http:") else []
    try:
        request = Request(receiver.url, data=body, headers=headers, method="POST")  # noqa: S310  checked when it was read
        with build_opener(_NoRedirect, *proxies).open(request, timeout=TIMEOUT_S) as answer:
            return Answer(answer.status, _words(answer, receiver))
    except HTTPError as error:
        with error:
            return Answer(error.code, _words(error, receiver))
    except URLError as error:
        return Answer(None, str(error.reason)[:MOST_WORDS])
    except (OSError, HTTPException, ValueError) as error:
        # its words may hold the address
        return Answer(None, "timed out" if isinstance(error, TimeoutError) else type(error).__name__)


class _NoRedirect(HTTPRedirectHandler):
    """Takes a redirect as the refusal that it is: a signed body goes where the operator said, and nowhere else."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:  # fmt: skip
        """Follow nothing."""
        return


def _words(answer: Any, receiver: Receiver) -> str:
    """Return the begin of an answer's body on one line, without the address if it says that back."""
    try:
        said = answer.read1(4096).decode(errors="replace")
    except (OSError, HTTPException):
        return ""  # the status says enough
    for secret in (receiver.url, receiver.url.partition("://")[2].partition("/")[2]):
        said = said.replace(secret, HIDDEN) if secret else said
    return "".join(letter for letter in " ".join(said.split()) if letter.isprintable())[:MOST_WORDS]


def _wrong(url: str) -> str:
    """Return what is wrong with an address, without telling it; empty when nothing is."""
    if not url:
        return "nothing"
    if not is_address(url):
        return f"{len(url)} characters that are no address"
    parts = urlsplit(url)
    if parts.scheme == "http" and not _here(parts):
        return "an http address of another machine"
    if "@" in parts.netloc:
        return "an address with a user"
    return ""


def _here(parts: SplitResult) -> bool:
    host = parts.hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
