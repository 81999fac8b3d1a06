"""The embedded object store keeps its objects, whatever their keys, and ends with its parent."""

import subprocess
import sys
import time

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coda.local.object_store import file_of_key, key_of_file
from coda.local.services import free_port


class Server:
    def __init__(self, root, port):
        self.root, self.port, self.process = root, port, None

    def start(self):
        command = [sys.executable, "-m", "coda.local.object_store", "--root", str(self.root), "--port", str(self.port)]
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
