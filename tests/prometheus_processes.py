"""Prometheus and its tools as processes of a test, and questions to them."""

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager


def get(address, **arguments):
    url = f"{address}?{urllib.parse.urlencode(arguments)}"
    with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310  loopback only
        return answer.read().decode()


def query(address, expression, **arguments):
    return json.loads(get(f"{address}/api/v1/query", query=expression, **arguments))["data"]["result"]


def eventually(question, patience_s=60.0):
    """The first answer that is neither empty nor an error of a service that is still starting."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            if answer := question():
                return answer
        except (urllib.error.URLError, ConnectionError):
            pass  # not up yet; the deadline below is what ends this
        assert time.monotonic() < deadline, "nothing came in time"
        time.sleep(0.2)


@contextmanager
def process(*command, log):
    with log.open("wb") as file:
        started = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            started.terminate()
            started.wait(20)


def tool(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def promtool(*arguments):
    return tool("promtool", *arguments)
