"""The long-running trigger: a loop that polls and advances, its own pages, and the pages about drift."""

import json
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import TypeVar

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from coda.errors import CodaError, ConfigError, TransientError
from coda.monitoring.endpoint import TextfileCollector
from coda.monitoring.listening import family_of, listening
from coda.trigger.notifications import Notifier
from coda.trigger.service import Handled, Trigger
from coda.trigger.site import Site, policy_of

log = logging.getLogger(__name__)

STUCK_S = 600.0
"""Seconds without a finished round after which the trigger says it is not healthy, and Kubernetes restarts it."""

PAUSE_S = 5.0
"""Seconds between two tries while a service is away."""

QUEUE_WAIT_S = 5
"""Seconds one look waits for a message."""

LOOK_ENDS_S = 5.0
"""Seconds that a look gets to end by itself when the service stops; it may be broken off anywhere."""

Answer = TypeVar("Answer")


@dataclass
class Health:
    """What one loop last did, as the pages tell it.

    Attributes:
        finished: Monotonic time of the last turn that ended, well or not.
        reached: Monotonic time of the last turn that reached all services.
        trouble: Why the last turn did not, in words.
    """

    finished: float
    reached: float | None = None
    trouble: str = "starting"

    def turned(self, trouble: str = "") -> None:
        """Note the end of a turn, and what was in its way."""
        self.finished, self.trouble = time.monotonic(), trouble
        if not trouble:
            self.reached = self.finished


class TriggerService:
    """A trigger with its two loops and its pages.

    One loop looks for what arrives, the other looks after runs and starts new ones: a look may take minutes, after a
    start or while the landing prefix is slow, and no heartbeat waits for it.
    """

    def __init__(
        self,
        trigger: Trigger,
        *,
        poll_every_s: float = 30.0,
        host: str = "127.0.0.1",
        port: int = 0,
        tell: Callable[[Handled], None] | None = None,
        notifier: Notifier | None = None,
        site_url: str = "",
    ) -> None:
        """Bind the port; nothing is polled yet.

        Args:
            trigger: The trigger.
            poll_every_s: Seconds between two looks, where a round does not come sooner.
            host: Address to listen on.
            port: Port; any free one for 0.
            tell: Called with every batch version that ended.
            notifier: Tells the operator's receiver of what ended.
            site_url: Address at which people reach the pages; this machine's own when not given.

        Raises:
            ConfigError: The port is taken.
        """
        self.trigger = trigger
        self.poll_every_s = poll_every_s
        self.health = Health(time.monotonic())
        self.looks = Health(time.monotonic())
        self._end: BaseException | None = None
        self._tell = tell
        self._notifier = notifier
        self._signals: tuple[socket.socket, ...] = ()
        if trigger.settings.metrics_dir is not None:
            # where no Pushgateway is, what the steps of this machine wrote down is scraped from here
            trigger.metrics.registry.register(TextfileCollector(Path(trigger.settings.metrics_dir)))
        with listening("The trigger", host, port):
            family = {"address_family": family_of(host)}
            self._pages = type("Pages", (ThreadingHTTPServer,), family)((host, port), _handler(self))
        self._pages.daemon_threads = True
        self.site = Site(trigger.settings, site_url or f"http://127.0.0.1:{self.port}")
        trigger.metrics.registry.register(self.site.metrics)

    @property
    def port(self) -> int:
        """Port of the pages."""
        return int(self._pages.server_port)

    def serve(self, *, grace_s: float = 20.0) -> None:
        """Work until `stop`; then end the runs that depend on this process, and note that they resume later.

        Raises:
            ConfigError: A setting must be put right first.
        """
        pages = threading.Thread(target=self._pages.serve_forever, name="pages", daemon=True)
        pages.start()
        for source in self.trigger.arrivals.sources:
            source.start()
        looking = threading.Thread(target=self._look_on, name="looks", daemon=True)
        looking.start()
        beside = [
            threading.Thread(target=part.keep, args=(self.trigger.stopping,), name=type(part).__name__, daemon=True)
            for part in (self.site, self._notifier)
            if part is not None
        ]
        for thread in beside:
            thread.start()
        try:
            while not self.trigger.stopping.is_set():
                self._round()
        finally:
            self.stop()  # both loops, when this one met an error
            for source in self.trigger.arrivals.sources:
                source.stop()
            try:
                self.trigger.stop(grace_s)
            finally:
                self._pages.shutdown()
                self._pages.server_close()
                pages.join()
                for thread in (looking, *beside):
                    thread.join(LOOK_ENDS_S)
        if self._end is not None:
            raise self._end

    def stop(self) -> None:
        """Have `serve` return soon; for any thread, but not for a signal handler."""
        self.trigger.stopping.set()
        self.trigger.nudged.set()
        self._news()

    def _news(self) -> None:
        """Have the services beside the loops find what ended."""
        self.site.want()
        if self._notifier is not None:
            self._notifier.want()

    def stop_on_signals(self) -> None:
        """Stop on SIGTERM, SIGINT and a closed terminal; for the main thread of a program that ends with `serve`."""
        reading, writing = socket.socketpair()
        writing.settimeout(0)
        # not in a handler: it could run while this very thread holds the lock of the event it has to set
        signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN or number != signal.SIGHUP:  # nohup stays in force
                signal.signal(number, _leave_to_the_socket)

        def wait() -> None:
            reading.recv(1)
            self.stop()

        self._signals = (reading, writing)  # open as long as a signal may come
        threading.Thread(target=wait, name="signals", daemon=True).start()

    def _look_on(self) -> None:
        """Poll for arrivals, until the service stops."""
        try:
            while not self.trigger.stopping.is_set():
                self._turn(self.looks, lambda: self.trigger.look(wait_s=QUEUE_WAIT_S), "look")
                self.trigger.nudged.set()  # what arrived has its turn now
                self.trigger.stopping.wait(min(PAUSE_S, self.poll_every_s))
        except BaseException as error:  # noqa: BLE001  the other loop, which ends the program with it, is told
            self._end = error
            self.stop()

    def _round(self) -> None:
        busy = self._turn(self.health, self.trigger.advance, "round")
        for handled in self.trigger.taken():
            self._news()
            if self._tell is not None:
                self._tell(handled)
        pause = self.trigger.pace.tick_s if busy else min(PAUSE_S, self.poll_every_s)
        self.trigger.nudged.wait(PAUSE_S if self.health.trouble else pause)
        if not self.trigger.stopping.is_set():
            self.trigger.nudged.clear()

    def _turn(self, health: Health, act: Callable[[], Answer], name: str) -> Answer | None:
        """Do one turn of a loop; what goes wrong with it is logged, and the next turn comes.

        Raises:
            ConfigError: A setting must be put right first.
        """
        answer = None
        trouble = ""
        try:
            answer = act()
        except TransientError as error:
            # nothing is lost: queue, landing prefix and ledger keep what was not finished
            log.warning("A service is away: %s", error)
            trouble = error.message
        except ConfigError:
            raise
        except CodaError as error:
            # one broken object must not stop the batches behind it for ever
            log.exception("This %s could not be finished.", name)
            trouble = error.message
        except Exception as error:
            # a defect of ours: it is told and counted, and the next one comes; a restart would only meet it again
            log.exception("This %s met a defect.", name)
            self.trigger.metrics.defects.labels(outcome="round").inc()
            trouble = f"a defect: {type(error).__name__}: {error}"
        health.turned(trouble)
        return answer

    def page(self, path: str) -> tuple[int, str, bytes]:
        """Return status, content type and body of a page."""
        now = time.monotonic()
        if path == "/healthz":
            # of a long look every manifest is a sign of life
            looked = max(self.looks.finished, self.trigger.arrivals.moved)
            alive = now - min(self.health.finished, looked) < STUCK_S
            return (200 if alive else 503), "application/json", _json(alive=alive)
        if path == "/readyz":
            limit = max(60.0, 3 * self.poll_every_s)
            loops = (self.health, self.looks)
            ready = all(loop.reached is not None and now - loop.reached < limit for loop in loops)
            trouble = next((loop.trouble for loop in loops if loop.trouble), "")
            return (200 if ready else 503), "application/json", _json(ready=ready, trouble=trouble)
        if path == "/metrics":
            return 200, CONTENT_TYPE_LATEST, generate_latest(self.trigger.metrics.registry)
        found = self.site.page(path)
        return found or (404, "application/json", _json(pages=["/", "/healthz", "/readyz", "/metrics"]))


def _leave_to_the_socket(number: int, frame: FrameType | None) -> None:
    """Keep Python's own handling of a signal from ending the program."""


def _json(**values: object) -> bytes:
    return (json.dumps(values) + "\n").encode()


def _handler(service: TriggerService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers GET with the pages of one service."""

        timeout = 10

        def do_GET(self) -> None:
            """Answer with a page."""
            path = self.path.partition("?")[0]
            if path in {"/", "/site", "/site/"}:
                self.send_response(302)
                self.send_header("Location", "/site/index.html")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            status, kind, body = service.page(path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Security-Policy", policy_of(path))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Referrer-Policy", "no-referrer")
            self.send_header("Cache-Control", "no-cache")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  the base class's name
            """Keep quiet: a probe every few seconds is no news."""
            log.debug(format, *arguments)

    return Handler
