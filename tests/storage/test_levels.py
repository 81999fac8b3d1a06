"""One level of a bucket's names, and what is said of one object, against what the whole listing says."""

import pytest
from botocore.paginate import Paginator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import Moto

from coda.storage import ObjectNotFoundError, ObjectStore

NAMES = st.text("ab é+%", min_size=1, max_size=3).filter(lambda name: name.strip() == name)
KEYS = st.lists(st.lists(NAMES, min_size=1, max_size=4).map("/".join), max_size=12, unique=True)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keys=KEYS, bare=st.booleans())
def test_a_level_is_what_the_whole_listing_says_of_it(moto_server: Moto, keys, bare) -> None:
    bucket = moto_server.bucket()
    store = bucket if bare else ObjectStore(f"{bucket.uri}/some/prefix", moto_server.endpoint)
    for key in keys:
        store.put(key, key.encode())
    listed = list(store.list())
    folders = {""} | {"/".join(key.split("/")[:depth]) + "/" for key in keys for depth in range(1, key.count("/") + 1)}
    for folder in folders:
        below = [item for item in listed if item.key.startswith(folder)]
        level = store.level(folder)
        assert set(level.objects) == {item for item in below if "/" not in item.key[len(folder) :]}
        deeper = {
            folder + item.key[len(folder) :].split("/")[0] + "/" for item in below if "/" in item.key[len(folder) :]
        }
        assert sorted(level.folders) == sorted(deeper)
    for item in listed:
        assert store.info(item.key) == item
        assert store.get_tagged(item.key) == (item.key.encode(), item.etag)


def test_pages_beyond_those_wanted_are_not_read(moto_server: Moto, monkeypatch) -> None:
    store = moto_server.bucket()
    for number in range(5):
        store.put(f"{number}/x", b"")
    paginate = Paginator.paginate
    pages = lambda self, **more: paginate(self, PaginationConfig={"PageSize": 2}, **more)  # noqa: E731
    monkeypatch.setattr(Paginator, "paginate", pages)
    assert store.level("", pages=1).folders == ("0/", "1/")
    assert store.level("").folders == ("0/", "1/", "2/", "3/", "4/")


def test_nothing_is_said_of_what_is_not_there(moto_server: Moto) -> None:
    store = moto_server.bucket()
    assert store.info("none") is None
    assert store.level("none/") == store.level("none/", pages=1)
    assert store.level("none/").objects == store.level("none/").folders == ()
    with pytest.raises(ObjectNotFoundError):
        store.get_tagged("none")
