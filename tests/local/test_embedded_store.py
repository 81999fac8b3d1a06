"""The embedded object store keeps its objects, whatever their keys, and ends with its parent."""

import io
import subprocess
import sys
import time

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from moto.s3.models import s3_backends

from coda.local.object_store import ACCOUNT, LARGEST, REGION, WriteThrough, file_of_key, key_of_file
from coda.local.services import free_port


class Server:
    def __init__(self, root, port):
        self.root, self.port, self.process = root, port, None

    def start(self, program=("-m", "coda.local.object_store"), *options):
        command = [sys.executable, *program, "--root", str(self.root), "--port", str(self.port), *options]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self.process.stdout.readline().strip() == b"ready"
        return boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            aws_access_key_id="a",
            aws_secret_access_key="b",
            region_name="us-east-1",
        )

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path / "objects", free_port())
    yield server
    if server.process.poll() is None:
        server.kill()


def contents(client):
    listed = client.list_objects_v2(Bucket="bucket").get("Contents", [])
    return {item["Key"]: client.get_object(Bucket="bucket", Key=item["Key"])["Body"].read() for item in listed}


def test_a_queue_is_there_from_the_first_request_on_also_after_a_restart(server):
    for _ in range(2):
        server.start(("-m", "coda.local.object_store"), "--queue", "events")
        client = boto3.client(
            "sqs", endpoint_url=f"http://127.0.0.1:{server.port}", aws_access_key_id="a", aws_secret_access_key="b",
            region_name=REGION,
        )  # fmt: skip
        address = f"http://127.0.0.1:{server.port}/{ACCOUNT}/events"
        assert "Messages" not in client.receive_message(QueueUrl=address)
        assert client.create_queue(QueueName="events")["QueueUrl"] == address
        server.kill()


def test_objects_survive_a_kill(server):
    client = server.start()
    client.create_bucket(Bucket="bucket")
    keys = ["plain", "a/b", "a", "ü +%2F.bin", "x" * 600]
    for key in keys:
        client.put_object(Bucket="bucket", Key=key, Body=key.encode())
    client.put_object(Bucket="bucket", Key="gone", Body=b"1")
    client.put_object(Bucket="bucket", Key="gone too", Body=b"1")
    client.delete_object(Bucket="bucket", Key="gone")
    client.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": "gone too"}]})
    upload = client.create_multipart_upload(Bucket="bucket", Key="parts")["UploadId"]
    part = client.upload_part(Bucket="bucket", Key="parts", UploadId=upload, PartNumber=1, Body=b"whole")
    client.complete_multipart_upload(
        Bucket="bucket",
        Key="parts",
        UploadId=upload,
        MultipartUpload={"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]},
    )
    client.copy_object(Bucket="bucket", Key="copy", CopySource={"Bucket": "bucket", "Key": "plain"})
    before = contents(client)
    assert before == {**{key: key.encode() for key in keys}, "parts": b"whole", "copy": b"plain"}
    server.kill()
    assert contents(server.start()) == before


def asked(length, query="", method="PUT"):
    """A request that announces so many bytes."""
    return {
        "REQUEST_METHOD": method, "PATH_INFO": "/bucket/key", "QUERY_STRING": query, "CONTENT_LENGTH": str(length),
        "wsgi.input": io.BytesIO(b"x" * 3_000_000),
    }  # fmt: skip


def test_what_would_not_fit_into_memory_is_refused_before_it_is_kept(tmp_path):
    served, statuses = [], []
    store = WriteThrough(lambda environ, start: served.append(environ) or [b""], tmp_path)
    backend = s3_backends[ACCOUNT]["aws"]
    backend.create_bucket("bucket", "us-east-1")
    try:
        upload = backend.create_multipart_upload("bucket", "key", {}, "STANDARD", {}, None, "", "").id
        backend.upload_part("bucket", upload, 1, b"x" * 1000)
        for length, query in ((LARGEST + 1, ""), (LARGEST - 999, f"partNumber=2&uploadId={upload}")):
            environ = asked(length, query)
            (body,) = store(environ, lambda status, headers: statuses.append(status))
            assert b"<Code>EntityTooLarge</Code>" in body
            assert b"more than 2 GiB" in body
            assert environ["wsgi.input"].read() == b""
        assert (served, statuses) == ([], ["400 Bad Request"] * 2)
        store(asked(LARGEST + 1, f"uploadId={upload}", "POST"), None)  # the list of the parts, not an object
        for length, query in ((LARGEST, ""), (LARGEST - 1000, f"partNumber=2&uploadId={upload}"), (1, "uploadId=none")):
            store(asked(length, query), None)
        assert len(served) == 4
    finally:
        del backend.buckets["bucket"]


def test_a_refused_upload_is_told_in_the_stores_own_words(server):
    """Through boto3, whose requests are chunked and wait for a word before the body."""
    smaller = "from coda.local import object_store; object_store.LARGEST = 12_000_000; object_store.main()"
    client = server.start(("-c", smaller))
    client.create_bucket(Bucket="bucket")
    client.upload_fileobj(io.BytesIO(b"1" * 11_000_000), "bucket", "fits")
    with pytest.raises(ClientError, match=r"EntityTooLarge.*real S3 server"):
        client.upload_fileobj(io.BytesIO(b"1" * 21_000_000), "bucket", "parts")
    with pytest.raises(ClientError, match=r"EntityTooLarge.*real S3 server"):
        client.put_object(Bucket="bucket", Key="whole", Body=b"1" * 13_000_000)
    assert [item["Key"] for item in client.list_objects_v2(Bucket="bucket")["Contents"]] == ["fits"]


def test_it_ends_when_its_parent_lets_go(server):
    server.start()
    server.process.stdin.close()
    deadline = time.monotonic() + 10
    while server.process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert server.process.poll() == 0
    server.process.stdout.close()


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=700))
def test_keys_become_files_and_come_back(key):
    path = file_of_key(key)
    assert key_of_file(path) == key
    assert all(len(part.encode()) <= 250 for part in path.parts)
    assert ".." not in path.parts
