"""Published predictions: written once, replaced by a person alone, and never half there."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from servers import moto_server

from coda.contracts import ModelRef, ReleaseRecord
from coda.errors import ConfigError, IntegrityError, TransientError
from coda.steps.publication import Draft, Replacement, base_of, current, publications, publish
from coda.storage.objects import ObjectStore, store_for

__all__ = ["moto_server"]

REF = ModelRef(name="coda-extractor", version=3, digest="a" * 64)
RELEASE = ReleaseRecord(
    release_id="r-1", source="lab", created_at=datetime(2026, 1, 1, tzinfo=UTC), method="source", extractor=REF,
    head=REF.model_copy(update={"name": "coda-head", "digest": "b" * 64}), alignment="none", run_id="r-1",
    params_digest="c" * 64, gate_sentence="", approver="gate",
)  # fmt: skip
WHY = Replacement("Ada", "the plate map was wrong")


@pytest.fixture
def place(moto_server, tmp_path):
    settings = moto_server.settings(tmp_path)
    return settings.model_copy(update={"platform": moto_server.bucket().uri})


@pytest.fixture
def draft(tmp_path):
    """Builds tables with some content."""

    def build(text: str, version: str = "1", by: str = "somebody") -> Draft:
        folder = tmp_path / f"{text}-{version}-{by}"
        folder.mkdir(exist_ok=True)
        for name in ("field.parquet", "well.csv", "predictions.json"):
            (folder / name).write_text(f"{name} of {text}")
        files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
        return Draft(folder, files, "lab/b1", version * 64, RELEASE, {"crops.centre": 64}, "", by)

    return build


def store_of(settings) -> ObjectStore:
    return store_for(settings.platform, settings)


def content(settings, version=None) -> str:
    return current(store_of(settings), "lab/b1", "r-1", version).read(store_of(settings), "field.parquet").decode()


def test_the_same_bytes_again_change_nothing_and_the_record_says_what_made_them(place, draft):
    first = publish(draft("x"), place)
    before = {item.key: item.modified for item in store_of(place).list()}
    assert publish(draft("x", by="another"), place) == first
    assert {item.key: item.modified for item in store_of(place).list()} == before
    entry = first.entry
    assert (entry.extractor, entry.head, entry.params_digest) == (RELEASE.extractor, RELEASE.head, "c" * 64)
    assert (entry.manifest_digest, entry.by, entry.reason, entry.replaces) == ("1" * 64, "somebody", "", None)
    assert entry.code_version
    assert len(entry.code_digest) == 64
    assert entry.served_as == {"crops.centre": 64}


def test_other_bytes_are_refused_unless_a_person_says_why_and_the_earlier_ones_stay(place, draft):
    publish(draft("x"), place)
    with pytest.raises(ConfigError, match=r"(?s)nothing was published.*field\.parquet.*--replace-because"):
        publish(draft("y"), place)
    assert content(place) == "field.parquet of x"
    second = publish(draft("y"), place, replacement=WHY)
    assert (second.entry.sequence, second.entry.replaces) == (2, 1)
    assert (second.entry.by, second.entry.reason) == ("Ada", "the plate map was wrong")
    assert content(place) == "field.parquet of y"
    every = publications(store_of(place), "lab/b1", "r-1")
    assert [item.read(store_of(place), "well.csv").decode() for item in every] == ["well.csv of x", "well.csv of y"]
    # what was replaced is not current any more, so even its bytes need a reason
    with pytest.raises(ConfigError):
        publish(draft("x", by="again"), place)
    assert publish(draft("x", by="back"), place, replacement=WHY).entry.sequence == 3
    assert content(place) == "field.parquet of x"


def test_another_version_of_the_batch_is_another_matter(place, draft):
    publish(draft("x"), place)
    assert publish(draft("y", "2"), place).entry.replaces is None
    assert content(place, "1" * 64) == "field.parquet of x"
    assert content(place, "2" * 64) == content(place) == "field.parquet of y"
    assert current(store_of(place), "lab/b1", "r-1", "3" * 64) is None
    with pytest.raises(ConfigError):
        publish(draft("z"), place)


def test_of_writers_at_the_same_moment_one_publishes_and_nothing_is_mixed(place, draft):
    drafts = [draft(f"x{number % 4}", by=f"w{number}") for number in range(8)]

    def attempt(one: Draft) -> str:
        try:
            publish(one, place)
        except ConfigError:
            return "refused"
        return "published"

    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(attempt, drafts))
    (found,) = publications(store_of(place), "lab/b1", "r-1")
    names = {found.read(store_of(place), name).decode().rpartition(" ")[2] for name in found.files}
    assert len(names) == 1
    (winner,) = names
    # the two writers of the winner's bytes agree; everybody else is told
    assert ends == ["published" if f"x{number % 4}" == winner else "refused" for number in range(8)]


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_writer_that_is_killed_has_published_nothing_and_the_next_one_has(place, draft, monkeypatch, after):
    sent = []

    def upload(store, path, key, content_type=""):
        if len(sent) >= after:
            raise TransientError("gone")
        sent.append(key)
        store.put(key, path.read_bytes(), content_type)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "upload", upload)
        with pytest.raises(TransientError):
            publish(draft("x"), place)
    assert current(store_of(place), "lab/b1", "r-1") is None
    publish(draft("y"), place)
    assert content(place) == "field.parquet of y"


def test_what_was_published_before_the_list_is_found_and_kept(place, draft):
    old, base, store = draft("x"), base_of("lab/b1", "r-1"), store_of(place)
    for name in old.files:
        store.put(f"{base}/{name}", (old.folder / name).read_bytes())
    tables = {name: digest for name, digest in old.files.items() if name != "predictions.json"}
    store.put(f"{base}/predictions.json", json.dumps({"files": tables}).encode())
    assert publish(draft("x", by="b"), place).entry is None
    with pytest.raises(ConfigError, match="are not changed"):
        publish(draft("y"), place)
    publish(draft("y", by="b"), place, replacement=WHY)
    assert content(place) == "field.parquet of y"
    first, _ = publications(store, "lab/b1", "r-1")
    assert first.read(store, "field.parquet") == b"field.parquet of x"


def test_a_changed_table_or_list_is_told(place, draft):
    found, store = publish(draft("x"), place), store_of(place)
    store.put(f"{found.prefix}/well.csv", b"other")
    with pytest.raises(IntegrityError, match=r"well\.csv"):
        found.read(store, "well.csv")
    base = base_of("lab/b1", "r-1")
    store.put(f"{base}/publications/000003.json", store.get(f"{base}/publications/000001.json"))
    with pytest.raises(IntegrityError, match="not whole"):
        publications(store, "lab/b1", "r-1")
