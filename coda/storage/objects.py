"""ObjectStore: one bucket and prefix of any S3-compatible service, with conditional create.

Works with AWS S3, Ceph RGW, SeaweedFS and moto: path-style addresses, signature version 4, and no request checksums
that older services refuse. Nothing here compares and swaps with If-Match, which Ceph 16 refuses even for the current
version; `put_if_absent` (If-None-Match: *) is what claims and the release log are built on (decision 0003).
"""

import base64
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from coda.errors import ConfigError, Problem, TransientError
from coda.settings import Settings, is_address, without_secrets
from coda.storage import bulk, levels
from coda.storage.clients import s3_client
from coda.storage.failures import (
    BEYOND,
    BROKEN_OFF,
    COLLISION,
    LOST_RACE,
    MISSING,
    ObjectNotFoundError,
    ObjectTooLargeError,
    code_of,
    disk_explained,
    explained,
)

WHOLE_BYTES: Final = 8 * 1024 * 1024
"""Files up to this size are sent and read with one request; larger ones in parts of this size."""

BLOCK_BYTES: Final = 1024 * 1024
"""What is in memory at once of an object that is read in blocks."""

_WRITER = "coda-writer"


@dataclass(frozen=True)
class ObjectInfo:
    """One object as a listing shows it.

    Attributes:
        key: Key relative to the store's prefix.
        size: Size in bytes.
        etag: Entity tag without quotation marks.
        modified: Time of the last write, with time zone.
        has_sha256: Whether the service keeps a SHA-256 checksum of it.
    """

    key: str
    size: int
    etag: str
    modified: datetime
    has_sha256: bool = False


@dataclass(frozen=True)
class OpenUpload:
    """An upload in parts that was begun: its parts cost space, and no listing shows them.

    Attributes:
        key: Key relative to the store's prefix.
        upload_id: The service's name for it.
        begun: When it was begun.
    """

    key: str
    upload_id: str
    begun: datetime


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and prefix of ``s3://bucket/prefix``; the prefix has no slash at its ends.

    Raises:
        ConfigError: It is no S3 URI with a bucket.
    """
    scheme, marker, rest = uri.partition("://")
    bucket, _, prefix = rest.partition("/")
    if scheme != "s3" or not marker or not bucket:
        problem = Problem(uri, "something else", "s3://bucket/prefix", "Correct the address.")
        raise ConfigError(f"{uri!r} is not the address of an object store.", [problem])
    return bucket, prefix.strip("/")


def store_for(uri: str, settings: Settings) -> "ObjectStore":
    """Return the store at ``s3://bucket/prefix`` behind the endpoint of these settings."""
    return ObjectStore(uri, settings.s3_endpoint)


def locate(uri: str, settings: Settings) -> tuple["ObjectStore", str]:
    """Return the store of an object's folder, and the object's name in it."""
    bucket, key = split_uri(uri)
    folder, _, name = key.rpartition("/")
    return ObjectStore(f"s3://{bucket}/{folder}", settings.s3_endpoint), name


class ObjectStore:
    """One bucket and prefix. Threads may share it; it holds no connection of its own, so it can be pickled.

    Keys are relative to the prefix of the URI. Every method raises TransientError when the service is away or
    overloaded after boto3's own retries, and ConfigError when bucket, credentials or rights must be put right.
    """

    def __init__(
        self,
        uri: str,
        endpoint: str | None = None,
        *,
        attempts: int = 4,
        timeout_s: float = 30,
        unsigned: bool = False,
    ) -> None:
        """Name the place; nothing is connected yet.

        Args:
            uri: ``s3://bucket`` or ``s3://bucket/prefix``.
            endpoint: URL of the service; none for AWS itself.
            attempts: Tries of one request, the first included.
            timeout_s: Seconds without a byte after which a request counts as failed.
            unsigned: Whether requests are sent without credentials, as public buckets take them.

        Raises:
            ConfigError: The URI or the endpoint cannot be one.
        """
        self.bucket, self.prefix = split_uri(uri)
        self.endpoint = endpoint
        self.attempts = attempts
        self.timeout_s = timeout_s
        self.unsigned = unsigned
        if endpoint is not None and not is_address(endpoint):
            found = without_secrets(repr(endpoint))
            problem = Problem("AWS_ENDPOINT_URL_S3", found, "http://host:port or https://host", "Correct it.")
            raise ConfigError("The endpoint of the object store cannot be used.", [problem])

    @property
    def uri(self) -> str:
        """Address of the store, without a slash at the end."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def url(self, key: str) -> str:
        """Return the full address of an object: ``s3://bucket/prefix/key``."""
        return f"s3://{self.bucket}/{self.path(key)}"

    def path(self, key: str) -> str:
        """Return the key inside the bucket."""
        return f"{self.prefix}/{key}" if self.prefix else key

    def get(self, key: str, *, at_most: int | None = None, span: tuple[int, int] | None = None) -> bytes:
        """Return an object's bytes.

        Args:
            key: The object.
            at_most: Largest size that is read into memory.
            span: First byte and number of bytes (at least 1) where only a part is wanted; there may be fewer.

        Raises:
            ObjectNotFoundError: There is no such object.
            ObjectTooLargeError: It is larger than `at_most`.
        """
        return self.get_tagged(key, at_most=at_most, span=span)[0]

    def get_tagged(
        self, key: str, *, at_most: int | None = None, span: tuple[int, int] | None = None
    ) -> tuple[bytes, str]:
        """Return an object's bytes and the entity tag of these very bytes; see `get`."""
        part = {} if span is None else {"Range": f"bytes={span[0]}-{span[0] + span[1] - 1}"}
        for attempt in range(1, self.attempts + 1):
            with explained("read", self.url(key), self.endpoint):
                try:
                    answer = self.client.get_object(Bucket=self.bucket, Key=self.path(key), **part)
                except ClientError as error:
                    if span is not None and code_of(error) in BEYOND:
                        return b"", ""
                    raise
                body, size = answer["Body"], int(answer["ContentLength"])
                if at_most is not None and size > at_most:
                    body.close()
                    problem = Problem(self.url(key), f"{size} bytes", f"at most {at_most}", "Find out who changed it.")
                    raise ObjectTooLargeError(f"{self.url(key)} is larger than expected.", [problem])
                try:
                    return bytes(body.read()), str(answer["ETag"]).strip('"')
                except BROKEN_OFF:
                    # boto3 sends a request again, but never finishes a body that broke off half-way
                    if attempt == self.attempts:
                        raise
        raise TransientError(f"Could not read {self.url(key)}.")

    def blocks(self, key: str) -> Iterator[bytes]:
        """Yield an object's bytes in blocks of at most 1 MiB, without ever holding all of them.

        A body that breaks off is asked for again from where it stopped.

        Raises:
            ObjectNotFoundError: There is no such object.
            TransientError: The service is away, or the object was replaced while it was read.
        """
        done, etag, attempt = 0, "", 0
        while True:
            with explained("read", self.url(key), self.endpoint):
                rest = {"Range": f"bytes={done}-"} if done else {}
                answer = self.client.get_object(Bucket=self.bucket, Key=self.path(key), **rest)
                if etag and answer["ETag"] != etag:
                    raise TransientError(f"{self.url(key)} was replaced while it was read.")
                etag = answer["ETag"]
                try:
                    for block in answer["Body"].iter_chunks(BLOCK_BYTES):
                        done, attempt = done + len(block), 0
                        yield block
                except BROKEN_OFF:
                    attempt += 1
                    if attempt == self.attempts:
                        raise
                else:
                    return

    def find(self, key: str, *, at_most: int | None = None) -> bytes | None:
        """Return an object's bytes, or none when there is no such object; see `get`."""
        try:
            return self.get(key, at_most=at_most)
        except ObjectNotFoundError:
            return None

    def put(self, key: str, data: bytes, content_type: str = "application/octet-stream") -> None:
        """Write an object, whole or not at all, over whatever was there."""
        with explained("write", self.url(key), self.endpoint):
            self.client.put_object(Bucket=self.bucket, Key=self.path(key), Body=data, ContentType=content_type)

    def put_if_absent(self, key: str, data: bytes, content_type: str = "application/json") -> bool:
        """Create an object unless it exists; of any number of writers at once exactly one gets True.

        A write whose answer was lost and which boto3 sent again is recognised by a mark in the object's metadata, so
        the winner never takes itself for a loser.
        """
        writer = uuid.uuid4().hex
        for attempt in range(1, self.attempts + 1):
            with self._explained("create", key):
                try:
                    self.client.put_object(
                        Bucket=self.bucket,
                        Key=self.path(key),
                        Body=data,
                        ContentType=content_type,
                        IfNoneMatch="*",
                        Metadata={_WRITER: writer},
                    )
                except ClientError as error:
                    code = code_of(error)
                    if code in LOST_RACE:
                        retried = attempt > 1 or error.response["ResponseMetadata"].get("RetryAttempts", 0) > 0
                        return retried and bool(self._head(key).get("Metadata", {}).get(_WRITER) == writer)
                    if code not in COLLISION or attempt == self.attempts:
                        raise
                else:
                    return True
            time.sleep(0.1 * attempt)
        raise TransientError(f"Could not create {self.url(key)}: the object store kept asking to try again.")

    def exists(self, key: str) -> bool:
        """Return whether there is such an object."""
        return self.size(key) is not None

    def age_s(self, key: str) -> float | None:
        """Return for how many seconds an object has not been written, or none when there is no such object.

        Both times are the store's own, so that no other clock has a part in it; at least 0, to a second.
        """
        with explained("look up", self.url(key), self.endpoint):
            answer = self._head(key)
        if not answer:
            return None
        said = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
        try:
            now = parsedate_to_datetime(said)
        except ValueError:  # a store that does not say what time it is
            now = datetime.now(UTC)
        modified: datetime = answer["LastModified"]
        return max(0.0, (now - modified).total_seconds())

    def size(self, key: str) -> int | None:
        """Return the size in bytes, or none when there is no such object."""
        with self._explained("look up", key):
            answer = self._head(key)
        return int(answer["ContentLength"]) if answer else None

    def info(self, key: str) -> ObjectInfo | None:
        """Return what a listing would say of one object, or none when there is no such object."""
        with self._explained("look up", key):
            answer = self._head(key)
        if not answer:
            return None
        return ObjectInfo(key, int(answer["ContentLength"]), answer["ETag"].strip('"'), answer["LastModified"])

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield all objects whose key starts with `prefix`, in the order of their keys (UTF-8 bytes)."""
        pages = self.client.get_paginator("list_objects_v2")
        with explained("list", self.url(prefix), self.endpoint):
            for page in pages.paginate(Bucket=self.bucket, Prefix=self._within(prefix)):
                yield from map(self.listed, page.get("Contents", ()))

    def listed(self, item: dict[str, Any]) -> ObjectInfo:
        """Return an object as boto3 lists it."""
        key = item["Key"][len(self.prefix) + 1 if self.prefix else 0 :]
        checked = "SHA256" in item.get("ChecksumAlgorithm", ())
        return ObjectInfo(key, int(item["Size"]), item["ETag"].strip('"'), item["LastModified"], checked)

    def present(self, keys: Collection[str], prefix: str = "") -> set[str]:
        """Return which of these objects exist, asking for listings in place of each one.

        A page of a listing begins just before the first object that is not known yet and answers for all that lie in
        it: there are never many more requests than objects asked for, nor than pages of what lies between them.
        """
        waiting = sorted(set(keys), key=str.encode, reverse=True)  # the next one is the last
        found: set[str] = set()
        start = ""
        while waiting:
            start = max(start, self.path(waiting[-1])[:-1], key=str.encode)
            with explained("list", self.url(prefix), self.endpoint):
                page = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self._within(prefix), StartAfter=start)
            names = [item["Key"] for item in page.get("Contents", ())]
            more = bool(page.get("IsTruncated"))
            if (names and names[0].encode() <= start.encode()) or (more and not names):
                # a service that does not know StartAfter: what its first page lacks may be there all the same
                return found | {key for key in waiting if self.exists(key)}
            listed = set(names)
            while waiting and not (more and self.path(waiting[-1]).encode() > names[-1].encode()):
                key = waiting.pop()
                if self.path(key) in listed:
                    found.add(key)
            start = names[-1] if names else start
        return found

    def sha256(self, key: str) -> str | None:
        """Return the SHA-256 of a whole object, in hexadecimal, where the service itself keeps it; else none.

        Objects that were sent in parts may have a checksum of the checksums of their parts, which is no SHA-256 of
        the object.
        """
        with self._explained("look up", key):
            answer = self.client.head_object(Bucket=self.bucket, Key=self.path(key), ChecksumMode="ENABLED")
        try:
            digest = base64.b64decode(str(answer.get("ChecksumSHA256", "")), validate=True)
        except ValueError:
            return None
        whole = answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
        return digest.hex() if whole and len(digest) == 32 else None

    def level(self, prefix: str = "", *, pages: int | None = None) -> levels.Level:
        """Return what lies directly below a prefix ('' or ending in '/'); see `coda.storage.levels.level_of`."""
        return levels.level_of(self, prefix, pages)

    def folders(self, prefix: str = "") -> Iterator[str]:
        """Yield the next path segment below `prefix` ('' or ending in '/'), once each, without a slash."""
        for folder in self.level(prefix).folders:
            yield folder.rstrip("/").rpartition("/")[2]

    def download(self, key: str, path: Path) -> Path:
        """Write an object to a file, whole or not at all, and return the path.

        Raises:
            ObjectNotFoundError: There is no such object.
            ConfigError: The file cannot be written (full disk, no right).
        """
        with self._explained("download", key), disk_explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self.client.download_file(self.bucket, self.path(key), str(path), Config=self._transfer)
        return path

    def upload(self, path: Path, key: str, content_type: str = "application/octet-stream") -> None:
        """Write a file to an object; large files in parts, visible only when complete."""
        with explained("upload", self.url(key), self.endpoint), path.open("rb") as file:
            if path.stat().st_size <= WHOLE_BYTES:
                self.client.put_object(Bucket=self.bucket, Key=self.path(key), Body=file, ContentType=content_type)
            else:
                self.client.upload_fileobj(
                    file, self.bucket, self.path(key), ExtraArgs={"ContentType": content_type}, Config=self._transfer
                )

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        with explained("delete", self.url(key), self.endpoint):
            self.client.delete_object(Bucket=self.bucket, Key=self.path(key))

    def upload_folder(
        self,
        folder: Path,
        prefix: str = "",
        *,
        last: tuple[str, ...] = ("manifest.json",),
        workers: int = 8,
        progress: bulk.Progress | None = None,
    ) -> int:
        """Send all files below a folder; see `coda.storage.bulk.upload_folder`."""
        return bulk.upload_folder(self, folder, prefix, last=last, workers=workers, progress=progress)

    def download_folder(
        self, prefix: str, folder: Path, *, workers: int = 8, progress: bulk.Progress | None = None
    ) -> tuple[Path, ...]:
        """Fetch all objects below a prefix; see `coda.storage.bulk.download_folder`."""
        return bulk.download_folder(self, prefix, folder, workers=workers, progress=progress)

    def open_uploads(self) -> Iterator[OpenUpload]:
        """Yield the uploads in parts below the prefix that were begun and neither finished nor given up."""
        pages = self.client.get_paginator("list_multipart_uploads")
        with explained("list the open uploads of", self.uri, self.endpoint):
            for page in pages.paginate(Bucket=self.bucket, Prefix=self._within("")):
                for item in page.get("Uploads", ()):
                    key = item["Key"][len(self.prefix) + 1 if self.prefix else 0 :]
                    yield OpenUpload(key, item["UploadId"], item["Initiated"])

    def abort_upload(self, upload: OpenUpload) -> None:
        """Give up an upload in parts, and free what its parts hold; one that is gone is no error."""
        with explained("give up the upload of", self.url(upload.key), self.endpoint):
            try:
                self.client.abort_multipart_upload(
                    Bucket=self.bucket, Key=self.path(upload.key), UploadId=upload.upload_id
                )
            except ClientError as error:
                if code_of(error) not in {"NoSuchUpload", "404"}:
                    raise

    def ensure_bucket(self) -> None:
        """Create the bucket unless it exists (embedded services and tests; real buckets are made by their owner)."""
        with explained("create the bucket of", self.uri, self.endpoint):
            try:
                self.client.create_bucket(Bucket=self.bucket)
            except ClientError as error:
                if code_of(error) not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                    raise

    @property
    def client(self) -> Any:
        """The boto3 client that this process shares among its stores of the same service."""
        with explained("connect to", self.uri, self.endpoint):
            return s3_client(self.endpoint, attempts=self.attempts, timeout_s=self.timeout_s, unsigned=self.unsigned)

    def __repr__(self) -> str:
        return f"ObjectStore({self.uri!r}, {self.endpoint!r})"

    @contextmanager
    def _explained(self, action: str, key: str) -> Iterator[None]:
        """Do as `explained`, and learn why the service refused a HEAD: its answer has no body that could say so."""
        with explained(action, self.url(key), self.endpoint):
            try:
                yield
            except ClientError as error:
                if error.operation_name == "HeadObject" and code_of(error) in {"400", "401", "403"}:
                    # the same right, and an answer that has its reason in it
                    answer = self.client.get_object(Bucket=self.bucket, Key=self.path(key), Range="bytes=0-0")
                    answer["Body"].close()
                raise

    @property
    def _transfer(self) -> TransferConfig:
        return TransferConfig(multipart_threshold=WHOLE_BYTES, multipart_chunksize=WHOLE_BYTES, max_concurrency=4)

    def _within(self, prefix: str) -> str:
        return f"{self.prefix}/{prefix}" if self.prefix else prefix

    def _head(self, key: str) -> dict[str, Any]:
        try:
            return dict(self.client.head_object(Bucket=self.bucket, Key=self.path(key)))
        except ClientError as error:
            if code_of(error) in MISSING:
                return {}
            raise
