"""SQS long polling: S3 notifications, acknowledged only after what they say is durable elsewhere."""

import json
import logging
from typing import Any, Self
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from coda.errors import ConfigError, Problem, TransientError
from coda.storage.clients import sqs_client
from coda.storage.failures import explained
from coda.storage.objects import ObjectStore
from coda.trigger.event_source import EventSource, SourceContext, Take
from coda.trigger.events import fingerprint, manifest_keys, read_message
from coda.trigger.metrics import TriggerMetrics
from coda.trigger.visibility import KeptInvisible

log = logging.getLogger(__name__)

BATCH = 10
"""Messages in one answer; SQS allows no more."""

DEFAULT_HIDDEN_S = 30
"""SQS's own default of a queue's visibility timeout."""

STALE = ("ReceiptHandleIsInvalid", "AWS.SimpleQueueService.ReceiptHandleIsInvalid", "InvalidParameterValue")
"""Answers to an acknowledgement that came after the message was handed out again."""


class Queue(EventSource):
    """One SQS queue with notifications of the landing bucket."""

    name = "queue"
    says = "the notifications in an SQS queue: queue=URL, or the one in CODA_QUEUE_URL"

    def __init__(
        self, url: str, landing: ObjectStore, platform: ObjectStore, metrics: TriggerMetrics | None = None
    ) -> None:
        """Name the queue; nothing is connected yet.

        Args:
            url: Address of the queue; its host is also the service's endpoint.
            landing: Store at the landing prefix: events of other places are acknowledged and dropped.
            platform: Where messages that nobody can read are kept.
            metrics: What is counted.
        """
        self.url = url
        self.landing = landing
        self.platform = platform
        self._client: Any = None
        self._hidden_s: int | None = None
        self._redrives: bool | None = None
        self._metrics = metrics or TriggerMetrics()
        self._reached = False
        self._doubtful = False

    @classmethod
    def make(cls, context: SourceContext, where: str) -> Self:
        """Return the source at an address."""
        url = where or context.settings.queue_url
        if not url:
            problem = Problem("--events queue", "no address", "CODA_QUEUE_URL or queue=URL", "Say which queue.")
            raise ConfigError("The queue is not named.", [problem])
        return cls(url, context.landing, context.ledger.store, context.metrics)

    @property
    def description(self) -> str:
        """Which queue it is."""
        return f"the queue {self.url}"

    def drain(self, take: Take, *, wait_s: int = 0, everything: bool = False, rounds: int = 100) -> int:
        """Hand the manifests of waiting messages to `take`, and acknowledge those it made durable.

        Where the last drain met an error that may be a service's, that is asked first: received in vain, each message
        would come nearer to the dead-letter queue with every poll and every start.

        Args:
            take: Gets the key of a manifest below the landing prefix; returns whether it is recorded. An exception
                leaves this message and the rest in the queue, where they appear again.
            wait_s: Seconds to wait for a first message, at most 20.
            everything: Changes nothing.
            rounds: Answers to read at most, so that a flood cannot keep the trigger from its other work.

        Returns:
            Messages that were acknowledged.

        Raises:
            TransientError: The queue is away.
            ConfigError: The queue is not there, or may not be read.
        """
        del everything
        if not self._reached:
            self.platform.exists("ledger/claim.json")
            self.landing.exists("manifest.json")
        count = 0
        self._reached, self._doubtful = False, False
        for round_ in range(rounds):
            if self._doubtful:
                break
            messages = self._receive(wait_s if round_ == 0 else 0)
            if not messages:
                break
            with KeptInvisible(self._connected(), self.url, self._visibility_s(), messages) as kept:
                for message in messages:
                    if self._recorded(message["Body"], take):
                        self._delete(message["ReceiptHandle"])
                        kept.done(message["ReceiptHandle"])
                        count += 1
        self._reached = not self._doubtful
        return count

    def _recorded(self, body: str, take: Take) -> bool:
        try:
            recorded = self._take(body, take)
        except (TransientError, ConfigError):
            raise
        except Exception:
            # it comes again, until the queue's own redrive policy sets it aside; those behind it need not wait for that
            self._doubtful = True
            self._metrics.defects.labels(outcome="arrival").inc()
            log.exception("A message could not be handled and stays in the queue.")
            recorded = False
        if not recorded:
            self._metrics.messages.labels(outcome="kept").inc()
        return recorded

    def _take(self, body: str, take: Take) -> bool:
        message = read_message(body)
        if message.problem:
            return self._set_aside(body, message.problem)
        keys = manifest_keys(message, self.landing)
        # all of a message is tried; it is acknowledged only when all of it is recorded
        taken = [take(key) for key in keys]
        if all(taken):
            self._metrics.messages.labels(outcome="recorded" if keys else "elsewhere").inc()
            return True
        self._doubtful = True
        return False

    def _set_aside(self, body: str, problem: str) -> bool:
        """Keep a message that nobody can read where a person can; return whether it may leave the queue.

        A queue with dead letters gets it back, and puts it there after its own number of tries. In one without, it
        would come back for ever, or be gone unseen after some days.
        """
        name = f"events/unreadable/{fingerprint(body)}.json"
        if self.platform.put_if_absent(name, json.dumps({"problem": problem, "body": body}).encode()):
            log.error("A message in the queue cannot be read (%s); a copy is at %s.", problem, self.platform.url(name))
        self._metrics.messages.labels(outcome="unreadable").inc()
        return not self._has_dead_letters()

    def _has_dead_letters(self) -> bool:
        """Return whether the queue moves what is received too often to another queue; unknown counts as yes."""
        if self._redrives is None:
            try:
                answer = self._connected().get_queue_attributes(QueueUrl=self.url, AttributeNames=["RedrivePolicy"])
                self._redrives = bool(answer.get("Attributes", {}).get("RedrivePolicy"))
            except (BotoCoreError, ClientError) as error:
                log.warning("Whether the queue has dead letters is unknown (%s); its messages are left in it.", error)
                return True
        return self._redrives

    def _visibility_s(self) -> int:
        """Return for how many seconds the queue hides a message from others once it handed it out."""
        if self._hidden_s is None:
            try:
                answer = self._connected().get_queue_attributes(QueueUrl=self.url, AttributeNames=["VisibilityTimeout"])
                self._hidden_s = int(answer["Attributes"]["VisibilityTimeout"])
            except (BotoCoreError, ClientError) as error:
                log.warning("The queue's visibility timeout is unknown (%s); SQS's own default is assumed.", error)
                self._hidden_s = DEFAULT_HIDDEN_S
        return self._hidden_s

    def _receive(self, wait_s: int) -> list[dict[str, Any]]:
        with explained("read", self.url, None, "the queue"):
            answer = self._connected().receive_message(
                QueueUrl=self.url, MaxNumberOfMessages=BATCH, WaitTimeSeconds=min(wait_s, 20)
            )
        return list(answer.get("Messages", ()))

    def _delete(self, receipt: str) -> None:
        with explained("acknowledge a message of", self.url, None, "the queue"):
            try:
                self._connected().delete_message(QueueUrl=self.url, ReceiptHandle=receipt)
            except ClientError as error:
                # the message appeared again meanwhile; its copy finds the ledger written and is acknowledged instead
                if str(error.response.get("Error", {}).get("Code", "")) not in STALE:
                    raise

    def _connected(self) -> Any:
        if self._client is None:
            parts = urlsplit(self.url)
            self._client = sqs_client(f"{parts.scheme}://{parts.netloc}")
        return self._client
