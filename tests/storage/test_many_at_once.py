"""Many objects and many files of a history, asked for together: the answers are those of asking one by one."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import Moto

from coda.storage import ObjectStore
from coda.storage.programs import git, git_files

KEYS = st.text("abé/", min_size=1, max_size=4).filter(lambda key: not key.startswith("/") and "//" not in key)


@pytest.fixture
def store(moto_server: Moto) -> ObjectStore:
    return ObjectStore(f"{moto_server.bucket().uri}/some/prefix", moto_server.endpoint)


@pytest.fixture
def pages_of(store: ObjectStore):
    """Let a listing have pages of so many objects; returns what was asked, by name."""
    asked: list[str] = []
    most = [1000]

    def note(params, model, **_):
        asked.append(model.name)
        if model.name == "ListObjectsV2":
            params["MaxKeys"] = most[0]

    store.client.meta.events.register("before-parameter-build.s3", note)

    def choose(number: int) -> list[str]:
        most[0] = number
        asked.clear()
        return asked

    yield choose
    store.client.meta.events.unregister("before-parameter-build.s3", note)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(there=st.sets(KEYS, max_size=12), wanted=st.sets(KEYS, max_size=12), page=st.integers(1, 5))
def test_what_is_present_is_what_a_look_at_each_finds(store, pages_of, there, wanted, page):
    for item in list(store.list()):
        store.delete(item.key)
    for key in there:
        store.put(key, b"")
    # names that differ in their last letter alone lie before the one that is wanted, and may fill a page
    wanted = wanted | set(sorted(there)[::2])
    pages_of(page)
    assert store.present(wanted) == wanted & there


@pytest.mark.parametrize(("there", "wanted"), [(60, 60), (60, 3), (60, 0), (2, 60)])
def test_no_more_listings_than_pages_nor_than_objects(store, pages_of, there, wanted):
    for number in range(there):
        store.put(f"files/{number * 7919 % 1000:03d}", b"")
    names = [f"files/{number * 7919 % 1000:03d}" for number in range(wanted)]
    store.put("elsewhere", b"")
    asked = pages_of(10)
    assert store.present(names, "files/") == set(names[:there])
    assert set(asked) <= {"ListObjectsV2"}
    assert len(asked) <= min(-(-there // 10) + 1, wanted)


def test_a_service_that_does_not_know_where_to_begin_is_asked_for_each(store, pages_of):
    def forget(params, **_):
        params["url"] = params["url"].replace("start-after", "x-start-after")
        params["query_string"].pop("start-after", None)

    for number in range(10):
        store.put(f"{number}", b"")
    asked = pages_of(3)
    store.client.meta.events.register("before-call.s3.ListObjectsV2", forget)
    try:
        assert store.present({"1", "4", "9", "x"}) == {"1", "4", "9"}
    finally:
        store.client.meta.events.unregister("before-call.s3.ListObjectsV2", forget)
    assert "HeadObject" in asked


def test_files_of_a_history_come_with_their_bytes(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    git(work, "init", "--quiet", "--initial-branch=main")
    header = b"0123456789" * 4 + b" blob 3\n"  # as git says it of an object
    contents = {"a b.dvc": b"one\r\ntwo\n", "deep/c.dvc": b"", "d.dvc": b"\xff\n" + header}
    for name, content in contents.items():
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).write_bytes(content)
    git(work, "add", ".")
    git(work, "commit", "--quiet", "-m", "first")
    commit = git(work, "rev-parse", "HEAD").strip()
    (work / "d.dvc").write_bytes(b"later")
    git(work, "commit", "--quiet", "-am", "second")
    names = [f"{commit}:{name}" for name in contents]
    wrong = [f"{commit}:none.dvc", f"{commit}:deep", f"{'0' * 40}:d.dvc", f"{commit}:d.dvc\n{commit}:a b.dvc", "--help"]
    mixed = [name for pair in zip([*names, names[0], "HEAD:d.dvc"], wrong, strict=True) for name in pair]
    found = dict(zip(mixed, git_files(work, mixed), strict=True))
    assert [found[name] for name in names] == list(contents.values())
    assert found["HEAD:d.dvc"] == b"later"
    assert [found[name] for name in wrong] == [None] * len(wrong)
    assert git_files(work, []) == []
