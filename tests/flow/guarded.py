"""A gatekeeper before the object store: every request is held against the policy of the identity that sends it."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.iam import Ask, asks_of, matching, permitted, read_policy

CLASSES = {
    "plan_memory": "intake",
    "plan_plates": "intake", "ingest_plates": "intake", "ingest": "intake", "archive": "intake", "validate": "intake",
    "quality_verdict": "intake", "version": "version",
    "pretrain": "train", "train_head": "train", "evaluate": "train", "adapt": "train", "gate": "gate",
    "register_training": "register", "register_adaptation": "register", "release": "release", "predict": "predict",
    "report": "report", "conclude": "report", "trigger": "trigger", "producer": "producer",
}  # fmt: skip
"""Access key, which is the name of a step or service -> its policy file."""

_HOPS = {"connection", "transfer-encoding", "keep-alive", "content-length", "date", "server"}


@dataclass
class Gatekeeper:
    """What was asked by whom, what was refused, and which statements were needed."""

    policies: dict[str, list[dict[str, Any]]]
    of_buckets: list[dict[str, Any]]
    address: str = ""
    asked: set[tuple[str, str]] = field(default_factory=set)
    refused: list[tuple[str, Ask]] = field(default_factory=list)
    needed: set[tuple[str, str]] = field(default_factory=set)

    def admits(self, identity: str, asks: list[Ask]) -> bool:
        """Record a request and say whether it may pass."""
        own = self.policies.get(CLASSES.get(identity, ""), [])
        bad = [(identity, ask) for ask in asks if not permitted(own, self.of_buckets, ask)]
        self.asked |= {(identity, ask.action) for ask in asks}
        self.needed |= {(CLASSES[identity], s["Sid"]) for ask in asks for s in matching(own, ask)} if own else set()
        self.refused += bad
        return not bad

    def may_know(self, identity: str, bucket: str) -> bool:
        """Whether an identity is told that an object does not exist: AWS answers 403 to those who may not list."""
        own = self.policies.get(CLASSES.get(identity, ""), [])
        return permitted(own, self.of_buckets, Ask("s3:ListBucket", f"arn:aws:s3:::{bucket}"))


@contextmanager
def guarded(endpoint: str, folder: Path) -> Iterator[Gatekeeper]:
    """Stand between clients and the object store at `endpoint`, with the policies of a folder."""
    files = {path.stem: read_policy(path) for path in sorted(folder.glob("*.json"))}
    of_buckets = [statement for name, rules in files.items() if name.startswith("bucket-") for statement in rules]
    keeper = Gatekeeper({name: rules for name, rules in files.items() if not name.startswith("bucket-")}, of_buckets)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(keeper, urlsplit(endpoint).netloc))
    keeper.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield keeper
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(keeper: Gatekeeper, behind: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            identity = self.headers.get("Authorization", "").partition("Credential=")[2].partition("/")[0]
            asks = asks_of(self.command, self.path, dict(self.headers), body)
            if not keeper.admits(identity, asks):
                self.deny()
                return
            onward = http.client.HTTPConnection(behind, timeout=60)
            onward.request(self.command, self.path, body, dict(self.headers))
            answer = onward.getresponse()
            content = answer.read()
            bucket = self.path.lstrip("/").partition("/")[0].partition("?")[0]
            if answer.status == 404 and "x-amz-target" not in self.headers and not keeper.may_know(identity, bucket):
                keeper.refused.append((identity, Ask("404 for one who may not list", self.path)))
                self.deny()
                return
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _HOPS:
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            onward.close()

        def deny(self) -> None:
            content = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
            self.send_response(403)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
