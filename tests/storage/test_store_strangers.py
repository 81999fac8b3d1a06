"""What answers in place of an object store is the operator's, whichever request comes first, and never 'not there'."""

import pytest
from strangers import ANSWERS, stranger

from coda.errors import CodaError, ConfigError, TransientError
from coda.storage.objects import ObjectStore


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    """Some credentials, and no proxy of the machine that runs the test."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "embedded")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")


@pytest.mark.parametrize("case", ANSWERS)
def test_an_answer_that_no_object_store_gives_says_who_must_act(case, tmp_path):
    status, kind, body, operator = ANSWERS[case]
    with stranger(status, kind, body) as server:
        store = ObjectStore("s3://bucket", f"http://127.0.0.1:{server.server_port}", attempts=1, timeout_s=5)
        asked = {
            "get": lambda: store.get("a"), "list": lambda: list(store.list()), "put": lambda: store.put("a", b"x"),
            "create": lambda: store.put_if_absent("a", b"x"), "download": lambda: store.download("a", tmp_path / "a"),
        }  # fmt: skip
        if status != 404:  # a store, too, answers without a word to a HEAD
            asked["look up"] = lambda: store.exists("a")
        for name, act in asked.items():
            if case == "nothing at all" and name in {"put", "create"}:
                continue  # this cannot be told from a PUT whose answer broke off, and that is tried again
            with pytest.raises(CodaError) as caught:
                act()
            expected = ConfigError if operator else TransientError
            assert isinstance(caught.value, expected), f"{name}: {caught.value!r}"
