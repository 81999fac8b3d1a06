"""Keeps messages of SQS hidden from other readers while they are worked on, however long that takes."""

import logging
import threading
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from botocore.exceptions import BotoCoreError, ClientError

log = logging.getLogger(__name__)

OFTEN = 3
"""Times within the queue's visibility timeout that it is extended: two may fail before a message appears again."""


class KeptInvisible:
    """Extends the visibility timeout of messages until they are done, in a thread of its own."""

    def __init__(self, client: Any, url: str, timeout_s: int, messages: Iterable[Mapping[str, str]]) -> None:
        """Take messages that were just received.

        Args:
            client: boto3's SQS client.
            url: Address of the queue.
            timeout_s: The queue's visibility timeout; 0 hides nothing, and nothing is extended.
            messages: Messages as SQS handed them out.
        """
        self._client = client
        self._url = url
        self._timeout_s = timeout_s
        self._receipts = dict.fromkeys(message["ReceiptHandle"] for message in messages)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._extend, name="visibility", daemon=True)

    def __enter__(self) -> Self:
        """Begin; the first extension comes after a third of the timeout."""
        if self._timeout_s > 0:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; what was not done appears again when its timeout is over."""
        self._ended.set()
        if self._timeout_s > 0:
            self._thread.join()

    def done(self, receipt: str) -> None:
        """Let go of a message that left the queue."""
        with self._lock:
            self._receipts.pop(receipt, None)

    def _extend(self) -> None:
        while not self._ended.wait(self._timeout_s / OFTEN):
            with self._lock:
                receipts = list(self._receipts)
            if not receipts:
                return
            entries = [
                {"Id": str(number), "ReceiptHandle": receipt, "VisibilityTimeout": self._timeout_s}
                for number, receipt in enumerate(receipts)
            ]
            try:
                self._client.change_message_visibility_batch(QueueUrl=self._url, Entries=entries)
            except (BotoCoreError, ClientError) as error:
                # a message that appears again finds the ledger written; nothing is lost, only done twice
                log.warning("Messages could not be kept hidden: %s", error)
