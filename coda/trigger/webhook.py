"""The webhook's answers: object stores and event buses announce new data, and are answered when it is in the ledger."""

import email.message
import logging
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from coda.errors import CodaError, TransientError
from coda.storage.objects import ObjectStore
from coda.trigger.authentication import Authenticator, RepeatedError, Secrets, UnauthorisedError
from coda.trigger.events import Message, manifest_keys, read_message
from coda.trigger.limits import RateLimit
from coda.trigger.metrics import TriggerMetrics

log = logging.getLogger(__name__)

MOST_MANIFESTS = 100
"""Manifests one message may tell of: each costs a few requests to the object store."""

AGAIN_S = 30
"""Seconds after which a sender should send again while a service is away."""


@dataclass(frozen=True)
class Answer:
    """The answer to a sender.

    Attributes:
        status: HTTP status.
        outcome: Label of the counter.
        body: JSON object.
        retry_after_s: Seconds after which to send again; none when that is of no use.
    """

    status: HTTPStatus
    outcome: str
    body: dict[str, Any]
    retry_after_s: int | None = None


class Webhook:
    """Decides what each message is answered with. Threads may share it."""

    def __init__(
        self,
        take: Callable[[str], bool],
        *,
        landing: ObjectStore,
        secrets: Secrets,
        metrics: TriggerMetrics,
        rate: RateLimit | None = None,
    ) -> None:
        """Know what to do with messages.

        Args:
            take: Gets the key of a manifest below the landing prefix; returns whether it is recorded. Called from
                several threads.
            landing: Store at the landing prefix: messages of other places are accepted and start nothing.
            secrets: What senders know.
            metrics: What is counted.
            rate: Requests an address may send; 20 a second, 100 at once, when not given.
        """
        self._take = take
        self._landing = landing
        self._metrics = metrics
        self._rate = rate or RateLimit(20, 100)
        self._authenticator = Authenticator(secrets)

    def limited(self, sender: str) -> Answer | None:
        """Return the answer for an address that sends too much, or None."""
        wait_s = self._rate.wait_s(sender)
        if not wait_s:
            return None
        body = {"error": "too many requests from this address"}
        return Answer(HTTPStatus.TOO_MANY_REQUESTS, "limited", body, max(1, round(wait_s)))

    def received(self, headers: email.message.Message, body: bytes) -> Answer:
        """Return the answer to a message; 2xx only after all it tells of is in the ledger."""
        message = read_message(body)
        try:
            with self._authenticator.admitted(_sent_once(headers), body, message):
                return self._recorded(message)
        except UnauthorisedError as error:
            return Answer(HTTPStatus.UNAUTHORIZED, "unauthorised", {"error": f"not authorised: {error}"})
        except RepeatedError:
            return Answer(HTTPStatus.CONFLICT, "repeated", {"error": "this signed message was accepted before"})
        except _RefusedError as error:
            return error.answer
        except TransientError as error:
            log.warning("A message could not be recorded, and its sender is asked to send it again: %s", error)
            return _away()
        except CodaError:
            # what is wrong here is for the operator; the sender's part is to keep the message
            log.exception("A message could not be recorded, and its sender is asked to send it again.")
            return _away()

    def _recorded(self, message: Message) -> Answer:
        """Write down all that a message tells of.

        Raises:
            _RefusedError: Not all of it is written down.
        """
        if message.problem:
            problem = {"error": "the message cannot be understood", "problem": message.problem}
            raise _RefusedError(Answer(HTTPStatus.BAD_REQUEST, "unreadable", problem))
        keys = manifest_keys(message, self._landing)
        if len(keys) > MOST_MANIFESTS:
            problem = {"error": f"{len(keys)} manifests in one message; at most {MOST_MANIFESTS} are taken"}
            raise _RefusedError(Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "unreadable", problem))
        recorded = [self._take(key) for key in keys]  # all of them are tried
        if not all(recorded):
            raise _RefusedError(_away())
        return Answer(HTTPStatus.OK, "recorded", {"recorded": len(keys)})

    def count(self, answer: Answer) -> None:
        """Count an answer."""
        self._metrics.requests.labels(outcome=answer.outcome).inc()


class _RefusedError(Exception):
    """An answer that leaves the signature unused."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.outcome)
        self.answer = answer


def _sent_once(headers: email.message.Message) -> dict[str, str]:
    """Return the headers by their names in lower case; those sent twice are as good as none."""
    names = [name.lower() for name in headers]
    return {name.lower(): value for name, value in headers.items() if names.count(name.lower()) == 1}


def _away() -> Answer:
    body = {"error": "the message could not be recorded; send it again"}
    return Answer(HTTPStatus.SERVICE_UNAVAILABLE, "away", body, AGAIN_S)
