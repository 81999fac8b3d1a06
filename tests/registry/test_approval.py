"""A release that the gate held: who may promote it, from the decision that its run kept."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest_registry import Trained
from typer.testing import CliRunner

from coda.cli.registry import app
from coda.contracts import GateReport, ReleaseRecord
from coda.errors import ConfigError, IntegrityError
from coda.registry import ReleaseLog
from coda.registry.drafts import WAITING, keep_draft
from coda.settings import Settings

KEY = "runs/adapt-1/gate.json"


@pytest.fixture
def promote(services: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`coda registry promote`; errors come through as they are."""
    for name, value in services.environment.items():
        monkeypatch.setenv(name, value)

    def call(release: str, by: str) -> None:
        result = CliRunner().invoke(app, ["promote", release, "--reason", "looked at it", "--by", by])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output

    return call


@pytest.fixture
def hold(
    services: Settings, release_of: Callable[..., ReleaseRecord], trained: Trained, tmp_path: Path
) -> Callable[..., GateReport]:
    """Leaves what a run leaves whose release was held: the draft and the decision."""

    def leave(*approvers: str) -> GateReport:
        report = GateReport(
            source="lab_a", batch="b1", manifest_digest="0" * 64, policy_version="own-v2", baseline="unadapted",
            candidates=(), outcome="hold", chosen="coda", sentence="A person must decide.", approvers=approvers,
        )  # fmt: skip
        # a release is named after its run
        waiting = {"release_id": "adapt-1", "approver": WAITING, "run_id": "adapt-1", "gate_digest": report.digest()}
        keep_draft(release_of(trained).model_copy(update=waiting), tmp_path / "draft.json", settings=services)
        ReleaseLog(services).store.put(KEY, report.to_json().encode())
        return report

    return leave


def serving(services: Settings) -> str | None:
    current = ReleaseLog(services).current("lab_a")
    return current.approver if current else None


def test_only_who_the_policy_names_lets_it_serve(
    hold: Callable[..., GateReport], promote: Callable[..., None], services: Settings
) -> None:
    hold("Ada", "Grace")
    with pytest.raises(ConfigError, match="Ada, Grace") as caught:
        promote("adapt-1", "Mallory")
    assert "own-v2" in str(caught.value)
    assert serving(services) is None
    promote("adapt-1", "Grace")
    assert serving(services) == "Grace"
    # a release that has served is no draft any more: going back to it is everyday work
    promote("adapt-1", "Mallory")


def test_where_the_policy_names_nobody_whoever_may_promote_decides(
    hold: Callable[..., GateReport], promote: Callable[..., None], services: Settings
) -> None:
    hold()
    promote("adapt-1", "Lise")
    assert serving(services) == "Lise"


def test_a_decision_that_is_gone_or_changed_is_refused_by_name(
    hold: Callable[..., GateReport], promote: Callable[..., None], services: Settings
) -> None:
    report = hold("Ada")
    store = ReleaseLog(services).store
    store.put(KEY, report.model_copy(update={"approvers": ("Mallory",)}).to_json().encode())
    with pytest.raises(IntegrityError, match=r"runs/adapt-1/gate\.json"):
        promote("adapt-1", "Mallory")
    store.delete(KEY)
    with pytest.raises(IntegrityError, match="nothing"):
        promote("adapt-1", "Ada")
    assert serving(services) is None
