"""An entry of one scope's log that cannot be read: that scope is refused until a person speaks; no other notices."""

import pytest
from conftest_registry import Trained
from typer.testing import CliRunner

from coda.cli.registry import app
from coda.registry import ReleaseLog, promote, rollback
from coda.registry.mirror import drift
from coda.storage import store_for
from coda.storage.records import UnreadableRecordError


@pytest.fixture
def world(release_of, trained: Trained, services):
    record, settings = release_of(trained), services
    for scope in ("lab_a", "lab_b"):
        promote(record, scope, by="gate", reason="better", settings=settings)
    store_for(settings.platform, settings).put("releases/lab_b/000002.json", b'{"sequence": 2,')
    return record, settings


def test_cut_pointer_blocks_its_own_scope_alone_and_a_person_says_what_serves(world):
    record, settings = world
    log = ReleaseLog(settings)
    assert log.current("lab_a") == record
    assert log.serves_anywhere(record)
    assert log.released(record.release_id) == record
    assert list(drift(settings=settings)) == []
    with pytest.raises(UnreadableRecordError) as refused:
        log.current("lab_b")
    assert "coda registry promote RELEASE --scope lab_b --reason WHY" in str(refused.value)
    with pytest.raises(UnreadableRecordError):
        # an earlier entry must not serve in silence
        log.serving("lab_b")
    with pytest.raises(UnreadableRecordError):
        promote(record, "lab_b", by="gate", reason="r", settings=settings)
    entry = promote(record, "lab_b", by="Ada", reason="the pointer was cut", settings=settings)
    assert entry.sequence == 3
    assert log.current("lab_b") == record
    assert [item.sequence for item in log.readable("lab_b")] == [1, 3]
    with pytest.raises(UnreadableRecordError):
        log.history("lab_b")


def test_pointer_with_a_field_more_serves_nothing_in_silence(world):
    _, settings = world
    store = store_for(settings.platform, settings)
    text = store.get("releases/lab_a/000001.json").decode()
    store.put(
        "releases/lab_a/000002.json", text.replace('"sequence": 1', '"sequence": 2, "precision": "int4"').encode()
    )
    with pytest.raises(UnreadableRecordError, match="cannot be read"):
        ReleaseLog(settings).current("lab_a")
    entry, problems = ReleaseLog(settings).newest_readable("lab_a")
    assert (entry.sequence, problems) == (2, [])


def test_rollback_over_a_superseded_entry_works(world):
    record, settings = world
    promote(record, "lab_b", by="Ada", reason="cut", settings=settings)
    other = record.model_copy(update={"release_id": "other"})
    promote(other, "lab_b", by="Ada", reason="try", settings=settings)
    assert rollback("lab_b", by="Ada", reason="no", settings=settings).release == record


def test_list_shows_what_serves_elsewhere_and_fails_with_the_cut_one(world, monkeypatch):
    record, settings = world
    for name, value in settings.environment.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, ["list"])
    assert record.release_id in result.stdout
    assert "lab_a" in result.stdout
    assert isinstance(result.exception, UnreadableRecordError)
    assert "coda registry promote RELEASE --scope lab_b --reason WHY" in str(result.exception)
