"""One whole adaptation in which every step may do what its policy in k8s/iam says, and nothing else."""

import pytest

from coda.errors import ConfigError
from coda.local.arrival import run_until_settled
from coda.registry.releases import ReleaseLog
from coda.steps.conclude import Ended, conclude
from coda.storage.objects import ObjectStore, store_for
from tests.flow.guarded import CLASSES, guarded

pytestmark = pytest.mark.timeout(900)

ADAPTING = {
    "trigger", "plan_memory",
    "plan_plates", "ingest_plates", "ingest", "archive", "validate", "quality_verdict", "version", "adapt",
    "gate", "register_adaptation", "release", "predict", "report", "conclude",
}  # fmt: skip

NOT_ALWAYS_NEEDED = {
    ("intake", "EarlierBatches"): "a source's first batch has no earlier ones",
    ("intake", "NamesOfObjects"): "no file is missing from the delivery, and no earlier batch is fetched",
    ("version", "NamesOfObjects"): "nothing is listed; with it, what is not there is told as that (404 and not 403)",
    ("predict", "ParametersOfOldReleases"): "the release is of today: its networks record what they were made with",
    ("trigger", "Notifications"): "a trigger that polls reads no queue",
    ("trigger", "SentNotifications"): "this trigger has no receiver of notifications",
    ("trigger", "RecordsOfNotifications"): "the same",
    ("trigger", "Reports"): "no run ended after its report and before its record, and nobody looks at a page",
    ("trigger", "Pages"): "the service builds them, and this trigger looks once",
    ("trigger", "UnreadableMessages"): "every message could be read",
}


@pytest.fixture(scope="module")
def keeper(loop, root):
    with guarded(loop.settings.s3_endpoint, root / "k8s" / "iam") as found:
        yield found


@pytest.fixture(scope="module")
def settings(loop, keeper):
    """The loop's services behind the gatekeeper, with checkpoints in the bucket as on a cluster."""
    queue = loop.settings.queue_url.rpartition("/")[2]
    return loop.settings.model_copy(
        update={
            "s3_endpoint": keeper.address,
            "queue_url": f"{keeper.address}/123456789012/{queue}",
            "checkpoints": f"{loop.settings.platform}/checkpoints",
        }
    )


@pytest.fixture(scope="module")
def adapted(loop, settings, keeper, root, tmp_path_factory):
    loop.deliver("lab_c", "b1", source="guarded")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.environment.items():
            patch.setenv(name, value)
        patch.setenv("AWS_ACCESS_KEY_ID", "trigger")
        patch.setenv("CODA_TEST_IDENTITIES", "1")
        patch.setenv("PYTHONPATH", str(root / "tests" / "flow" / "identities"), prepend=":")
        work = tmp_path_factory.mktemp("work")
        ended = run_until_settled("guarded/b1", settings, loop.params, work, "lab_a", lambda line: None)
        # a run beside it that failed: what its last step does
        patch.setenv("AWS_ACCESS_KEY_ID", "conclude")
        failed = Ended("guarded-failed", "adaptation", ["s3://x/guarded/b1/manifest.json"], manifest_digest="0" * 64)
        assert conclude(failed, params=loop.params, settings=settings) is not None
    # as it is now: the tests below ask for what they must not get
    return {**ended, "refused": list(keeper.refused), "asked": set(keeper.asked), "needed": set(keeper.needed)}


def test_the_whole_loop_needs_no_right_beyond_the_policies(adapted):
    assert adapted["refused"] == []
    assert adapted["outcome"] in ("released", "incumbent_kept"), adapted
    assert {identity for identity, _ in adapted["asked"]} == ADAPTING


def test_every_right_of_a_policy_is_needed(adapted, keeper):
    exercised = {CLASSES[identity] for identity in ADAPTING}
    granted = {(name, s["Sid"]) for name, rules in keeper.policies.items() if name in exercised for s in rules}
    assert granted - adapted["needed"] <= set(NOT_ALWAYS_NEEDED)


@pytest.mark.parametrize("identity", sorted(CLASSES))
def test_no_identity_changes_history_or_deliveries(identity, adapted, loop, settings, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", identity)
    platform, landing = store_for(settings.platform, settings), store_for(settings.landing, settings)
    mine = ObjectStore(loop.settings.platform, loop.settings.s3_endpoint)
    entry = next(item.key for item in mine.list("releases/"))
    before = mine.get(entry)
    with pytest.raises(ConfigError, match="right it lacks"):
        platform.delete(entry)
    with pytest.raises(ConfigError, match="right it lacks"):
        platform.put(entry, b"{}")
    with pytest.raises(ConfigError, match="right it lacks"):
        landing.put("guarded/b1/manifest.json", b"{}")
    with pytest.raises(ConfigError, match="right it lacks"):
        landing.delete("guarded/b1/manifest.json")
    if identity != "release":
        with pytest.raises(ConfigError, match="right it lacks"):
            platform.put_if_absent("releases/guarded/999999.json", b"{}")
    assert mine.get(entry) == before
    assert ReleaseLog(loop.settings).history("guarded")
