"""Who may tell the trigger of new data by HTTP: senders that sign, and senders that only know a token.

A signature is HMAC-SHA256 over the time and the body, so it proves both, is good for a few minutes, and counts once.
Object stores cannot sign: they send a token, as Bearer (SeaweedFS, MinIO, Argo Events), as password of a user in the
URL (Knative, Ceph behind HTTPS), or as opaque data of a topic (Ceph). What a token's holder can do by repeating a
message is nothing: a message only says where to look (`docs/decisions/0007-webhook.md`).
"""

import base64
import binascii
import hashlib
import hmac
import re
import threading
import time
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from coda.errors import ConfigError, Problem, raise_if_any
from coda.trigger.events import Message

TOKEN = "CODA_WEBHOOK_TOKEN"  # noqa: S105  the name of a variable
KEY = "CODA_WEBHOOK_KEY"
"""Variables with the tokens and the signing keys, one a line; with ``_FILE`` after it, the file that holds them."""

TIMESTAMP_HEADER = "x-coda-timestamp"
SIGNATURE_HEADER = "x-coda-signature"

WINDOW_S = 300
"""Seconds by which the time of a signature may differ from ours; a signature is remembered as long as that lasts."""

MIN_CHARACTERS = 16
"""Characters of the shortest secret that is taken."""

MOST_REMEMBERED = 100_000
"""Signatures remembered at most, far above what the rate limit lets through in a window."""


class UnauthorisedError(Exception):
    """The sender did not prove that it may tell; the text says what was wrong, and nothing of what would be right."""


class RepeatedError(Exception):
    """The signed message was accepted before."""


@dataclass(frozen=True)
class Secrets:
    """What senders know. Several of each let a secret be changed without a gap.

    Attributes:
        tokens: Tokens of senders that cannot sign.
        keys: Keys of signatures.
    """

    tokens: tuple[bytes, ...]
    keys: tuple[bytes, ...]

    def __repr__(self) -> str:
        """Return how many there are, and none of them: secrets do not get into logs."""
        return f"Secrets({len(self.tokens)} tokens, {len(self.keys)} keys)"


def read_secrets(environment: MutableMapping[str, str]) -> Secrets:
    """Read the webhook's secrets, and take them out of the environment, which every run inherits.

    Args:
        environment: Variables; values are removed from it.

    Raises:
        ConfigError: There is none, a file cannot be read, or one is too short to be a secret.
    """
    problems: list[Problem] = []
    tokens, keys = (secrets_of(name, environment, problems) for name in (TOKEN, KEY))
    if not problems and not tokens and not keys:
        found, expected = "neither", f"secrets of senders, one a line, or {TOKEN}_FILE or {KEY}_FILE with such a file"
        remedy = "Make one: head -c 32 /dev/urandom | base64. Without a secret the webhook does not start."
        problems.append(Problem(f"{TOKEN}, {KEY}", found, expected, remedy))
    raise_if_any(ConfigError, "The webhook cannot tell who may use it.", problems)
    return Secrets(tokens, keys)


class Authenticator:
    """Checks senders. Threads may share it."""

    def __init__(self, secrets: Secrets) -> None:
        """Know these secrets; no signature was used yet."""
        self._secrets = secrets
        self._used: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def admitted(self, headers: Mapping[str, str], body: bytes, message: Message) -> Iterator[None]:
        """Check a sender, and use its signature up unless an exception leaves the block: then it may be sent again.

        Args:
            headers: Headers of the request by their names in lower case.
            body: Body as it came.
            message: What the body says.

        Raises:
            UnauthorisedError: The sender may not tell.
            RepeatedError: This signature was used.
        """
        signature = headers.get(SIGNATURE_HEADER)
        if signature is None:
            self._check_token(headers, message)
            yield
            return
        self._check_signature(signature, headers.get(TIMESTAMP_HEADER) or "", body)
        self._use(signature)
        try:
            yield
        except BaseException:
            with self._lock:
                self._used.pop(signature, None)
            raise

    def _check_signature(self, signature: str, at: str, body: bytes) -> None:
        if not re.fullmatch(r"[0-9]{1,12}", at):
            raise UnauthorisedError(f"{TIMESTAMP_HEADER} is no time in whole seconds since 1970")
        if abs(time.time() - int(at)) > WINDOW_S:
            raise UnauthorisedError(f"the signature is older than {WINDOW_S} s, or a clock is wrong")
        expected = [f"sha256={sign(key, int(at), body)}" for key in self._secrets.keys]
        if not _is_one_of(signature.encode(errors="replace"), [text.encode() for text in expected]):
            raise UnauthorisedError("the signature does not belong to this time and body")

    def _use(self, signature: str) -> None:
        now = time.monotonic()
        with self._lock:
            if signature in self._used:
                raise RepeatedError
            # in the order they came: the oldest are in front; a clock that is ahead may be as far off as one behind
            for old in list(takewhile(lambda name: now - self._used[name] > 2 * WINDOW_S, self._used)):
                del self._used[old]
            if len(self._used) >= MOST_REMEMBERED:
                raise UnauthorisedError("too many signatures at once; send again later")
            self._used[signature] = now

    def _check_token(self, headers: Mapping[str, str], message: Message) -> None:
        given = _tokens_in(headers.get("authorization") or "")
        if not given and message.notices:
            # all of a message must come from the sender, so each of its records must know the token
            opaque = {notice.opaque for notice in message.notices}
            given = [text.encode(errors="replace") for text in opaque] if len(opaque) == 1 else []
        if not any(_is_one_of(token, self._secrets.tokens) for token in given):
            raise UnauthorisedError("no signature, and no token that is known")


def sign(key: bytes, at: int, body: bytes) -> str:
    """Return the signature of a body at a time, in hexadecimal: HMAC-SHA256 of the seconds, a full stop and the body.

    Args:
        key: Signing key.
        at: Seconds since 1970.
        body: Body of the request.
    """
    return hmac.new(key, f"{at}.".encode() + body, hashlib.sha256).hexdigest()


def secrets_of(name: str, environment: MutableMapping[str, str], problems: list[Problem]) -> tuple[bytes, ...]:
    """Take the secrets of one variable, or of the file that it names with ``_FILE``, out of the environment.

    Args:
        name: Variable.
        environment: Variables; values are removed from it.
        problems: Gets what is wrong.
    """
    text, file = environment.pop(name, ""), environment.pop(f"{name}_FILE", "")
    where = f"{name}_FILE" if file else name
    if file:
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no text in UTF-8"
            problems.append(Problem(where, f"{file}: {reason}", "a file with one secret a line", "Correct the path."))
    secrets = [line.strip() for line in text.splitlines() if line.strip()]
    for number, secret in enumerate(secrets, 1):
        if len(secret) < MIN_CHARACTERS:
            found, expected = f"{len(secret)} characters in line {number}", f"at least {MIN_CHARACTERS}"
            problems.append(Problem(where, found, expected, "Make one: head -c 32 /dev/urandom | base64."))
    return tuple(secret.encode() for secret in secrets)


def _tokens_in(authorization: str) -> list[bytes]:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return [value.strip().encode(errors="replace")]
    if scheme.lower() == "basic":
        try:
            return [base64.b64decode(value, validate=True).partition(b":")[2]]
        except (binascii.Error, ValueError):
            return []
    return []


def _is_one_of(given: bytes, known: list[bytes] | tuple[bytes, ...]) -> bool:
    # all are compared, each in constant time, so that the time says neither how far nor which one was right
    return sum(hmac.compare_digest(given, secret) for secret in known) > 0
