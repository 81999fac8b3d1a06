"""An S3 endpoint for a million objects: keys kept in order, bodies that may be sizes alone, requests counted.

moto sorts all keys for each page of a listing, and would measure itself. This one knows ListObjectsV2, GET, HEAD, PUT
with If-None-Match, DELETE and the batch delete; no signature is checked. It ends with its standard input.

Run as ``python -m benchmarks.scale.crowded_store``; it prints the port it listens on. Of its own it answers
``POST /-/load`` (`load`) and ``GET /-/counts`` (requests since the last time).
"""

import bisect
import hashlib
import json
import os
import re
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

OWN = "-"
"""Where a bucket's name would stand in an address: what this server answers about itself."""

LAST = "\U0010ffff"
"""Comes after every letter of a key."""


@dataclass(frozen=True)
class Stored:
    """One object: its bytes, or a size alone, of which zeros are sent."""

    body: bytes | None
    size: int
    etag: str
    at: float


class Bucket:
    """Objects by key, and the keys in order."""

    def __init__(self) -> None:
        """Hold nothing."""
        self.objects: dict[str, Stored] = {}
        self.keys: list[str] = []
        self.lock = threading.Lock()

    def put(self, key: str, body: bytes, *, only_new: bool = False) -> Stored | None:
        """Store an object; None where there is one and only a new one was wanted."""
        made = Stored(body, len(body), hashlib.md5(body, usedforsecurity=False).hexdigest(), time.time())
        with self.lock:
            if key in self.objects:
                if only_new:
                    return None
            else:
                bisect.insort(self.keys, key)
            self.objects[key] = made
        return made

    def load(self, objects: list[tuple[str, str | None, int]]) -> None:
        """Store many: key, text or none, size where there is no text."""
        with self.lock:
            for key, text, size in objects:
                body = None if text is None else text.encode()
                etag = hashlib.md5(body or f"{key} {size}".encode(), usedforsecurity=False).hexdigest()
                self.objects[key] = Stored(body, size if body is None else len(body), etag, time.time())
            self.keys = sorted(self.objects)

    def delete(self, key: str) -> None:
        """Forget an object."""
        with self.lock:
            if self.objects.pop(key, None) is not None:
                del self.keys[bisect.bisect_left(self.keys, key)]

    def page(self, prefix: str, delimiter: str, after: str, most: int) -> tuple[list[str], list[str], str]:
        """Return keys and folders of one page of a listing, and where the next one begins; '' at the end."""
        with self.lock:
            at = bisect.bisect_right(self.keys, max(after, prefix)) if after else bisect.bisect_left(self.keys, prefix)
            keys: list[str] = []
            folders: list[str] = []
            last = ""
            while at < len(self.keys) and (key := self.keys[at]).startswith(prefix):
                if len(keys) + len(folders) == most:
                    return keys, folders, last
                head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
                if found:
                    folders.append(f"{prefix}{head}{delimiter}")
                    last = folders[-1] + LAST
                    at = bisect.bisect_left(self.keys, last)
                else:
                    keys.append(key)
                    last, at = key, at + 1
            return keys, folders, ""


class Server(ThreadingHTTPServer):
    """The endpoint, its buckets, and what was asked."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        """Listen on a port of loopback that the system chooses."""
        super().__init__(("127.0.0.1", 0), Handler)
        self.buckets: dict[str, Bucket] = {}
        self._counts: dict[str, int] = {}
        self._turn = threading.Lock()

    def bucket(self, name: str) -> Bucket:
        """Return a bucket; every one exists."""
        with self._turn:
            return self.buckets.setdefault(name, Bucket())

    def count(self, what: str, size: int) -> None:
        """Count a request and the bytes of its answer."""
        with self._turn:
            self._counts[what] = self._counts.get(what, 0) + 1
            self._counts["bytes"] = self._counts.get("bytes", 0) + size

    def counted(self) -> dict[str, int]:
        """Return what was counted since this was last asked."""
        with self._turn:
            counts, self._counts = self._counts, {}
            return counts


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer about an object, a listing, or what was counted."""
        bucket, key, query = self._asked()
        if bucket == OWN:
            self._answer(200, json.dumps(self.server.counted()).encode())
        elif key:
            self._object(bucket, key)
        elif "list-type" in query:
            self._listing(bucket, query)
        else:
            name = "ListMultipartUploadsResult" if "uploads" in query else "ListAllMyBucketsResult"
            self._counted("GET", 200, f"<{name}><IsTruncated>false</IsTruncated></{name}>".encode())

    def do_HEAD(self) -> None:
        """Answer about an object or a bucket, without its bytes."""
        bucket, key, _ = self._asked()
        stored = self.server.bucket(bucket).objects.get(key)
        if key and stored is None:
            self._counted("HEAD", 404)
        else:
            self._counted("HEAD", 200, stored=stored)

    def do_PUT(self) -> None:
        """Store an object; a bucket is there already."""
        bucket, key, _ = self._asked()
        body = self._body()
        if not key:
            self._counted("PUT", 200)
            return
        stored = self.server.bucket(bucket).put(key, body, only_new=self.headers.get("If-None-Match") == "*")
        if stored is None:
            self._counted("PUT", 412, _error("PreconditionFailed"))
        else:
            self._counted("PUT", 200, ETag=f'"{stored.etag}"')

    def do_DELETE(self) -> None:
        """Forget an object."""
        bucket, key, _ = self._asked()
        self.server.bucket(bucket).delete(key)
        self._counted("DELETE", 204)

    def do_POST(self) -> None:
        """Take many objects, or forget many."""
        bucket, _, _ = self._asked()
        body = self._body()
        if bucket == OWN:
            told = json.loads(body)
            self.server.bucket(told["bucket"]).load(told["objects"])
            self._answer(200)
            return
        for key in re.findall(r"<Key>(.*?)</Key>", body.decode()):
            self.server.bucket(bucket).delete(key)
        self._counted("POST", 200, b"<DeleteResult/>")

    def _asked(self) -> tuple[str, str, dict[str, str]]:
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        return bucket, key, {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}

    def _body(self) -> bytes:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "aws-chunked" not in (self.headers.get("Content-Encoding") or ""):
            return data
        parts, rest = [], data
        while rest:
            head, _, rest = rest.partition(b"\r\n")
            size = int(head.split(b";")[0], 16)
            if size == 0:
                break
            parts.append(rest[:size])
            rest = rest[size + 2 :]
        return b"".join(parts)

    def _object(self, bucket: str, key: str) -> None:
        stored = self.server.bucket(bucket).objects.get(key)
        if stored is None:
            self._counted("GET", 404, _error("NoSuchKey"))
            return
        body = stored.body if stored.body is not None else bytes(stored.size)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted is None:
            self._counted("GET", 200, body, stored=stored)
            return
        first, last = int(wanted[1]), int(wanted[2] or stored.size - 1)
        piece = body[first : last + 1]
        place = f"bytes {first}-{first + len(piece) - 1}/{stored.size}"
        self._counted("GET", 206, piece, stored=stored, Content_Range=place)

    def _listing(self, bucket: str, query: dict[str, str]) -> None:
        prefix, most = query.get("prefix", ""), int(query.get("max-keys", 1000))
        after = query.get("continuation-token") or query.get("start-after", "")
        store = self.server.bucket(bucket)
        keys, folders, token = store.page(prefix, query.get("delimiter", ""), after, most)
        rows = [
            f"<Contents><Key>{_text(key)}</Key><LastModified>{_stamp(stored.at)}</LastModified>"
            f"<ETag>&quot;{stored.etag}&quot;</ETag><Size>{stored.size}</Size></Contents>"
            for key in keys
            if (stored := store.objects.get(key)) is not None
        ]
        rows += [f"<CommonPrefixes><Prefix>{_text(folder)}</Prefix></CommonPrefixes>" for folder in folders]
        more = f"<NextContinuationToken>{escape(token)}</NextContinuationToken>" if token else ""
        text = (
            f"<ListBucketResult><Name>{bucket}</Name><Prefix>{_text(prefix)}</Prefix><EncodingType>url</EncodingType>"
            f"<KeyCount>{len(rows)}</KeyCount><IsTruncated>{'true' if token else 'false'}</IsTruncated>{more}"
            f"{''.join(rows)}</ListBucketResult>"
        )
        self._counted("LIST", 200, text.encode())

    def _counted(
        self, what: str, status: int, body: bytes = b"", *, stored: Stored | None = None, **headers: str
    ) -> None:
        self.server.count(what, len(body))
        if stored is not None:
            headers |= {"ETag": f'"{stored.etag}"', "Last_Modified": formatdate(stored.at, usegmt=True)}
        length = stored.size if stored is not None and self.command == "HEAD" else len(body)
        self._answer(status, body, length, **headers)

    def _answer(self, status: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("x-amz-request-id", "0")
        if status != 204:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _error(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()


def _text(key: str) -> str:
    return escape(quote(key, safe="/"))


def _stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def main() -> None:
    """Serve until the starter is gone."""
    server = Server()
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
