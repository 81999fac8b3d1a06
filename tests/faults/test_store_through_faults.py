"""The object store's port through the proxy: the quick part, in every run of the tests."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from servers import moto_server

from coda.errors import TransientError
from coda.storage.objects import ObjectStore
from tests.faults.proxy import FaultProxy

__all__ = ["moto_server"]

WRITERS = 8


@pytest.fixture
def proxied(moto_server):
    """A bucket seen directly, and through a proxy that spoils every third request."""
    direct = moto_server.bucket()
    proxy = FaultProxy(moto_server.endpoint, 1, share=0.34, silence_s=0.6)
    with proxy.serving():
        yield direct, proxy, ObjectStore(direct.uri, proxy.endpoint, attempts=4, timeout_s=0.4)


def patiently(call, *arguments):
    while True:
        try:
            return call(*arguments)
        except TransientError:
            continue


@pytest.mark.parametrize("kind", ["500", "503", "dropped", "answer lost", "body cut", "timeout"])
def test_bytes_are_whole_or_not_there(proxied, kind):
    direct, proxy, through = proxied
    body = b"0123456789" * 1000
    with proxy.spoiling(kind):
        for number in range(4):
            patiently(through.put, f"k{number}", body)
            assert patiently(through.get, f"k{number}") == body
        assert len(patiently(lambda: list(through.list()))) == 4
    assert proxy.injected[kind] > 0
    assert {direct.get(item.key) for item in direct.list()} == {body}


def test_of_writers_whose_answers_get_lost_one_at_most_wins_and_knows(proxied):
    direct, proxy, through = proxied
    barrier = threading.Barrier(WRITERS)

    def create(number):
        barrier.wait()
        try:
            return through.put_if_absent("claim", str(number).encode())
        except TransientError:
            return None

    with proxy.spoiling("answer lost", "dropped", "503"), ThreadPoolExecutor(WRITERS) as pool:
        won = list(pool.map(create, range(WRITERS)))
    assert won.count(True) <= 1
    written = int(direct.get("claim"))
    # whoever wrote it was told so, or was told that the store is away; nobody who lost was told that he won
    assert won[written] in (True, None)
    assert [number for number, told in enumerate(won) if told is True] in ([], [written])
