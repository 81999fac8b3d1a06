"""Work beside the main thread: waited for, ended when the main thread fails, and its errors told."""

import threading

import pytest

from coda.errors import CodaError
from coda.local.side_thread import Beside


def test_leaving_waits_for_the_work():
    done = []
    with Beside(lambda stopping: (stopping.wait(0.05), done.append(stopping.is_set()))):
        assert done == []
    assert done == [False]


def test_an_error_of_the_work_is_raised_where_it_was_begun():
    def fail(stopping):
        raise CodaError("the disk is full")

    with pytest.raises(CodaError, match="the disk is full"), Beside(fail):
        pass


def test_an_error_of_the_main_thread_ends_the_work_and_is_the_one_that_is_told():
    ended = threading.Event()

    def work(stopping):
        assert stopping.wait(30)
        ended.set()
        raise CodaError("not this one")

    with pytest.raises(KeyboardInterrupt), Beside(work):
        raise KeyboardInterrupt
    assert ended.is_set()
