"""An S3 and SQS endpoint for one laptop: moto's server, with its S3 objects kept on disk.

moto keeps everything in memory. A demo that is interrupted, or a stack that is stopped over night, must find its
objects again, so a small layer writes each object through to a folder and loads the folder at the start. Queues are
not kept: a lost notification is found by polling, as with any real store.

Run as ``python -m coda.local.object_store --root FOLDER --port PORT``; it prints ``ready`` when it listens.
"""

import argparse
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from coda.durable import write_durably

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

ACCOUNT, REGION = "123456789012", "us-east-1"
"""The one account that moto's server serves, and where its queue is."""

PIECE = 200
"""Longest part of a file name, in characters."""

LARGEST = 2 * 2**30
"""Bytes of the largest object that is taken: moto needs about six times as much memory to put one together."""

REFUSAL = (
    "<?xml version='1.0' encoding='UTF-8'?><Error><Code>EntityTooLarge</Code><Message>The embedded object store holds "
    f"objects in memory and takes none of more than {LARGEST // 2**30} GiB. Use a real S3 server: "
    "AWS_ENDPOINT_URL_S3 in docs/settings.md.</Message></Error>"
)


class WriteThrough:
    """WSGI layer around moto that mirrors S3 objects to a folder after every successful change."""

    def __init__(self, application: Application, root: Path) -> None:
        """Mirror the objects that `application` stores below `root`/<bucket>/<quoted key>."""
        self.application = application
        self.root = root
        self.lock = threading.Lock()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request and mirror what it changed before the answer leaves."""
        if environ["REQUEST_METHOD"] in ("PUT", "POST") and self._size(environ) > LARGEST:
            # a client that is not heard to the end takes it for a broken line; nothing comes after the body
            left = int(environ.get("CONTENT_LENGTH") or 0)
            while left > 0 and (piece := environ["wsgi.input"].read(min(left, 2**20))):
                left -= len(piece)
            start_response("400 Bad Request", [("Content-Type", "application/xml")])
            return [REFUSAL.encode()]
        answer: list[str] = []

        def note_status(status: str, *rest: Any) -> Any:
            answer.append(status)
            return start_response(status, *rest)

        body = self.application(environ, note_status)
        changed = environ["REQUEST_METHOD"] in ("PUT", "POST", "DELETE")
        if changed and answer and answer[0].startswith("2") and "aws4_request" in self._credential(environ):
            service = self._credential(environ).split("/")[-2]
            if service == "s3":
                self._mirror(environ["PATH_INFO"])
        return body

    @staticmethod
    def _size(environ: Environ) -> int:
        """Return the bytes that an object would have after this request: with the parts that came before.

        Parts that are on their way at the same time are not seen by each other, but by the request that joins them.
        """
        from moto.s3.models import s3_backends

        length = int(environ.get("CONTENT_LENGTH") or 0) if environ["REQUEST_METHOD"] == "PUT" else 0
        upload = parse_qs(environ.get("QUERY_STRING", "")).get("uploadId", [""])[0]
        bucket = s3_backends[ACCOUNT]["aws"].buckets.get(environ["PATH_INFO"].lstrip("/").partition("/")[0])
        begun = bucket.multiparts.get(upload) if bucket is not None and upload else None
        return length + sum(part.contentsize for part in list(begun.parts.values())) if begun else length

    @staticmethod
    def _credential(environ: Environ) -> str:
        found = re.search(r"Credential=([^,\s]+)", environ.get("HTTP_AUTHORIZATION", ""))
        return found.group(1) if found else ""

    def _mirror(self, path: str) -> None:
        from moto.s3.models import s3_backends

        # PATH_INFO is latin-1 by WSGI's rules; keys are UTF-8
        decoded = path.encode("latin-1").decode("utf-8")
        bucket, _, key = decoded.lstrip("/").partition("/")
        backend = s3_backends[ACCOUNT]["aws"]
        with self.lock:
            folder = self.root / bucket
            if bucket not in backend.buckets:
                return
            folder.mkdir(parents=True, exist_ok=True)
            if not key:
                self._forget_deleted(folder, backend, bucket)
                return
            stored = backend.get_object(bucket, key)
            target = folder / file_of_key(key)
            if stored is None:
                target.unlink(missing_ok=True)
                return
            write_durably(target, stored.value)

    @staticmethod
    def _forget_deleted(folder: Path, backend: Any, bucket: str) -> None:
        # a batch delete (POST /bucket?delete) names its keys in the body: compare instead of parsing it again
        for file in objects_in(folder):
            if backend.get_object(bucket, key_of_file(file.relative_to(folder))) is None:
                file.unlink()


def file_of_key(key: str) -> Path:
    """Return the relative path that mirrors an object key: quoted, in pieces no file system finds too long.

    A folder's name ends in '+', which quoting never produces, so a long key and its own beginning cannot collide.
    """
    quoted = quote(key, safe="")
    pieces = [quoted[start : start + PIECE] for start in range(0, len(quoted), PIECE)]
    return Path(*(f"{piece}+" for piece in pieces[:-1]), pieces[-1])


def key_of_file(path: Path) -> str:
    """Return the object key that a relative path mirrors; the inverse of `file_of_key`."""
    return unquote("".join(part.removesuffix("+") for part in path.parts))


def objects_in(folder: Path) -> list[Path]:
    """Return the mirrored objects of a bucket's folder, without drafts of an interrupted write."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".part"))


def restore(root: Path) -> int:
    """Put the mirrored objects back into moto; returns how many there were."""
    from moto.s3.models import s3_backends

    backend = s3_backends[ACCOUNT]["aws"]
    count = 0
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if folder.name not in backend.buckets:
            backend.create_bucket(folder.name, "us-east-1")
        for file in objects_in(folder):
            key = backend.put_object(folder.name, key_of_file(file.relative_to(folder)), file.read_bytes())
            # when it was written, not when this process began: the order of records is read from it
            key.last_modified = datetime.fromtimestamp(file.stat().st_mtime, UTC).replace(tzinfo=None)
            count += 1
    return count


def create_queue(name: str) -> None:
    """Create an SQS queue before anybody can ask: after a restart, a reader would be told that there is none."""
    from moto.sqs.models import sqs_backends

    sqs_backends[ACCOUNT][REGION].create_queue(name, None)


def serve(
    root: Path, port: int, queue: str | None = None, layer: Callable[[Application], Application] | None = None
) -> None:
    """Serve S3 and SQS on loopback until the process ends.

    Args:
        root: Folder of the objects.
        port: Port to listen on.
        queue: Name of a queue that is there from the first request on; none without it.
        layer: What requests pass first; nothing without it.
    """
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    root.mkdir(parents=True, exist_ok=True)
    restore(root)
    if queue is not None:
        create_queue(queue)
    application: Application = WriteThrough(DomainDispatcherApplication(create_backend_app), root)
    application = layer(application) if layer is not None else application
    server = make_server("127.0.0.1", port, application, threaded=True)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    server.serve_forever()


def _end_with_parent() -> None:
    # the parent holds the other end of standard input: when it is gone, however it went, so is this server
    sys.stdin.read()
    os._exit(0)


def command_line() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--queue")
    return parser


def main() -> None:
    """Read the command line and serve."""
    arguments = command_line().parse_args()
    serve(arguments.root, arguments.port, arguments.queue)


if __name__ == "__main__":
    main()
