"""The release log: who wins, what served when, and what is refused."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Barrier

import pytest
from conftest_registry import Trained, provenance

from coda.contracts import ReleaseRecord
from coda.errors import ConfigError, IntegrityError, TransientError
from coda.registry import ConflictError, ReleaseLog, promote, register_extractor, rollback
from coda.registry.mirror import alias_of, drift
from coda.registry.mlflow_client import connect
from coda.settings import Settings
from coda.storage import store_for

Make = Callable[..., ReleaseRecord]


@pytest.fixture
def record(release_of: Make, trained: Trained) -> ReleaseRecord:
    return release_of(trained)


def named(record: ReleaseRecord, name: str) -> ReleaseRecord:
    return record.model_copy(update={"release_id": name})


def serves(settings: Settings, scope: str) -> str | None:
    current = ReleaseLog(settings).current(scope)
    return current.release_id if current else None


def test_what_served_and_when(services: Settings, record: ReleaseRecord) -> None:
    log = ReleaseLog(services)
    assert log.current("lab_a") is None
    assert log.scopes() == []
    first = promote(record, "lab_a", by="gate", reason="good", settings=services)
    second = promote(named(record, "rel-2"), "lab_a", by="Ada", reason="better", settings=services)
    assert log.current("lab_a") == named(record, "rel-2")
    assert [entry.sequence for entry in log.history("lab_a")] == [1, 2]
    assert log.at("lab_a", first.at - timedelta(seconds=1)) is None
    assert log.at("lab_a", second.at - timedelta(microseconds=1)) == first
    assert log.at("lab_a", second.at) == second
    assert log.scopes() == ["lab_a"]
    assert log.serving("lab_b") is None
    promote(record, "default", by="gate", reason="good", settings=services)
    assert log.serving("lab_b") == record
    keys = [info.key for info in store_for(services.platform, services).list("releases/")]
    assert keys == ["releases/default/000001.json", "releases/lab_a/000001.json", "releases/lab_a/000002.json"]


def test_promoting_what_serves_changes_nothing(services: Settings, record: ReleaseRecord) -> None:
    entry = promote(record, "lab_a", by="gate", reason="good", settings=services)
    assert promote(record, "lab_a", by="gate", reason="again", settings=services) == entry
    assert len(ReleaseLog(services).history("lab_a")) == 1


def test_of_two_promotions_at_once_one_wins(services: Settings, record: ReleaseRecord) -> None:
    promote(record, "lab_a", by="gate", reason="good", settings=services)
    barrier = Barrier(2)

    def race(name: str) -> str:
        barrier.wait()
        try:
            promote(named(record, name), "lab_a", by=name, reason="mine", settings=services, expected_sequence=1)
        except ConflictError:
            return "lost"
        return name

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(race, ["rel-x", "rel-y"]))
    assert outcomes.count("lost") == 1
    winner = next(name for name in outcomes if name != "lost")
    assert serves(services, "lab_a") == winner
    assert [entry.release.release_id for entry in ReleaseLog(services).history("lab_a")] == ["rel-1", winner]


def test_of_two_processes_that_promote_one_wins(services: Settings, record: ReleaseRecord, tmp_path: Path) -> None:
    """Two programs that share nothing but the services, let go at the same moment."""
    promote(record, "lab_a", by="gate", reason="good", settings=services)
    record.write(tmp_path / "record.json")
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "import mlflow, torch\n"
        "from coda.contracts import ReleaseRecord\n"
        "from coda.registry import ConflictError, list_versions, promote\n"
        "from coda.settings import read_settings\n"
        "name, folder = sys.argv[1], Path(sys.argv[2])\n"
        "settings = read_settings()\n"
        "record = ReleaseRecord.read(folder / 'record.json').model_copy(update={'release_id': name})\n"
        "list_versions(settings)\n"
        "(folder / name).touch()\n"
        "while not (folder / 'go').exists(): time.sleep(0.001)\n"
        "try:\n"
        "    promote(record, 'lab_a', by=name, reason='mine', settings=settings, expected_sequence=1)\n"
        "except ConflictError: sys.exit(9)\n"
    )
    names = ["rel-x", "rel-y"]
    environment = {**os.environ, **services.environment}
    rivals = [subprocess.Popen([sys.executable, "-c", script, name, str(tmp_path)], env=environment) for name in names]
    while not all((tmp_path / name).exists() for name in names):
        assert all(rival.poll() is None for rival in rivals)
        time.sleep(0.05)
    (tmp_path / "go").touch()
    codes = [rival.wait() for rival in rivals]
    assert sorted(codes) == [0, 9]
    winner = names[codes.index(0)]
    assert [entry.release.release_id for entry in ReleaseLog(services).history("lab_a")] == ["rel-1", winner]
    assert drift(settings=services) == []


def test_a_decision_on_an_old_entry_is_refused(services: Settings, record: ReleaseRecord) -> None:
    promote(record, "lab_a", by="gate", reason="good", settings=services)
    with pytest.raises(ConflictError, match="by gate: good"):
        promote(named(record, "rel-2"), "lab_a", by="me", reason="late", settings=services, expected_sequence=0)
    assert serves(services, "lab_a") == "rel-1"


def test_rolling_back_goes_further_each_time(services: Settings, record: ReleaseRecord) -> None:
    for number in (1, 2, 3):
        promote(named(record, f"rel-{number}"), "lab_a", by="gate", reason="good", settings=services)
    rollback("lab_a", by="Ada", reason="worse", settings=services)
    assert serves(services, "lab_a") == "rel-2"
    rollback("lab_a", by="Ada", reason="worse still", settings=services)
    assert serves(services, "lab_a") == "rel-1"
    with pytest.raises(ConfigError, match="0 earlier"):
        rollback("lab_a", by="Ada", reason="once more", settings=services)
    promote(named(record, "rel-4"), "lab_a", by="gate", reason="good", settings=services)
    rollback("lab_a", by="Ada", reason="no", settings=services)
    assert serves(services, "lab_a") == "rel-1"
    actions = [entry.action for entry in ReleaseLog(services).history("lab_a")]
    assert actions == ["promote"] * 3 + ["rollback"] * 2 + ["promote", "rollback"]
    with pytest.raises(ConfigError, match="at least 1"):
        rollback("nobody", by="Ada", reason="x", settings=services)


def test_rolling_back_several_at_once(services: Settings, record: ReleaseRecord) -> None:
    for number in (1, 2, 3):
        promote(named(record, f"rel-{number}"), "lab_a", by="gate", reason="good", settings=services)
    rollback("lab_a", by="Ada", reason="both bad", settings=services, steps=2)
    assert serves(services, "lab_a") == "rel-1"


def test_a_mixed_pair_is_refused_with_every_reason(
    services: Settings, release_of: Make, trained: Trained, other_line: Trained
) -> None:
    mine, theirs = release_of(trained), release_of(other_line, "rel-2", "standardise")
    mixed = mine.model_copy(update={"head": theirs.head})
    with pytest.raises(ConfigError, match="do not belong together") as caught:
        promote(mixed, "lab_a", by="me", reason="oops", settings=services)
    assert {problem.where for problem in caught.value.problems} == {"release: alignment 'none'", "head version 4: line"}
    assert serves(services, "lab_a") is None
    for change in ({"head": mine.extractor}, {"extractor": mine.head}):
        with pytest.raises(ConfigError):
            promote(mine.model_copy(update=change), "lab_a", by="me", reason="oops", settings=services)


def test_an_adapted_extractor_fits_the_heads_of_its_line(
    services: Settings, release_of: Make, trained: Trained, adapted: Path
) -> None:
    base = release_of(trained)
    facts = provenance("adapt", "lab_b")
    ref = register_extractor(
        adapted / "extractor", adapted / "state", facts, settings=services, line=base.extractor.digest
    )
    record = base.model_copy(update={"release_id": "b", "extractor": ref})
    assert promote(record, "lab_b", by="gate", reason="good", settings=services).sequence == 1


def test_a_changed_byte_stops_promotion_and_rollback(services: Settings, record: ReleaseRecord) -> None:
    promote(record, "lab_a", by="gate", reason="good", settings=services)
    promote(named(record, "rel-2"), "lab_a", by="gate", reason="good", settings=services)
    for stored in Path(services.mlflow_artifacts.removeprefix("file://")).rglob("labels.json"):
        stored.write_bytes(b"[]")
    with pytest.raises(IntegrityError, match=r"labels\.json"):
        promote(named(record, "rel-3"), "lab_a", by="gate", reason="good", settings=services)
    with pytest.raises(IntegrityError, match=r"labels\.json"):
        rollback("lab_a", by="Ada", reason="worse", settings=services)
    assert serves(services, "lab_a") == "rel-2"


def test_a_hole_in_the_log_is_seen(services: Settings, record: ReleaseRecord) -> None:
    for number in (1, 2, 3):
        promote(named(record, f"rel-{number}"), "lab_a", by="gate", reason="good", settings=services)
    store = store_for(services.platform, services)
    store.delete("releases/lab_a/000002.json")
    with pytest.raises(IntegrityError, match=r"000003\.json"):
        ReleaseLog(services).history("lab_a")


def test_a_name_and_a_reason_are_asked_for(services: Settings, record: ReleaseRecord) -> None:
    with pytest.raises(ConfigError, match="reason"):
        promote(record, "lab_a", by="me", reason=" ", settings=services)
    with pytest.raises(ConfigError, match="name"):
        rollback("lab_a", by="", reason="x", settings=services)


def test_aliases_mirror_the_log_and_are_watched(services: Settings, record: ReleaseRecord) -> None:
    promote(record, "lab_a", by="gate", reason="good", settings=services)
    client = connect(services)
    assert int(client.get_model_version_by_alias("coda-head", "serving-lab_a").version) == record.head.version
    assert drift(settings=services) == []
    client.set_registered_model_alias("coda-head", "serving-lab_a", str(record.heads[1].version))
    client.set_registered_model_alias("coda-head", "serving-lab_z", "1")
    assert [problem.where for problem in drift(settings=services)] == [
        "coda-head@serving-lab_a",
        "coda-head@serving-lab_z",
    ]
    promote(record, "lab_a", by="gate", reason="good", settings=services)  # serves already: only the alias is put back
    assert [problem.where for problem in drift(settings=services)] == ["coda-head@serving-lab_z"]


def test_aliases_of_different_scopes_differ() -> None:
    names = ["lab.a", "lab_a", "lab-a", "a.b.c", "a_b.c"]
    assert len({alias_of(name) for name in names}) == len(names)


def test_a_mirror_that_fails_is_made_good_by_repeating(
    services: Settings, record: ReleaseRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise TransientError("MLflow is away.")

    with monkeypatch.context() as patch:
        patch.setattr("coda.registry.promotion.mirror", away)
        with pytest.raises(TransientError):
            promote(record, "lab_a", by="gate", reason="good", settings=services)
    assert len(drift(settings=services)) == 2
    promote(record, "lab_a", by="gate", reason="good", settings=services)
    assert drift(settings=services) == []
    assert len(ReleaseLog(services).history("lab_a")) == 1
