"""One whole adaptation in which every step may do what its policy in k8s/iam says, and nothing else."""

import pytest

from coda.local.arrival import run_until_settled
from tests.flow.guarded import CLASSES, guarded

pytestmark = pytest.mark.timeout(900)

IDENTITIES = sorted(set(CLASSES) - {"producer"})
OF_TRAINING = {"pretrain", "train_head", "evaluate", "register_training"}

NOT_NEEDED_HERE = {
    ("train", "LabelsAndReleases"): "",
}


@pytest.fixture(scope="module")
def keeper(loop, root):
    with guarded(loop.settings.s3_endpoint, root / "k8s" / "iam") as found:
        yield found


@pytest.fixture(scope="module")
def settings(loop, keeper):
    """The loop's services behind the gatekeeper, with checkpoints in the bucket as on a cluster."""
    queue = loop.settings.queue_url.rpartition("123456789012/")[2]
    return loop.settings.model_copy(
        update={
            "s3_endpoint": keeper.address,
            "queue_url": f"{keeper.address}/123456789012/{queue}",
            "checkpoints": f"{loop.settings.platform}/checkpoints",
        }
    )


@pytest.fixture
def as_one(monkeypatch):
    """Makes this process another identity."""

    def become(identity):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", identity)

    return become


@pytest.fixture(scope="module")
def adapted(loop, settings, keeper, root, tmp_path_factory):
    loop.deliver("lab_c", "guarded")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.environment.items():
            patch.setenv(name, value)
        patch.setenv("AWS_ACCESS_KEY_ID", "trigger")
        patch.setenv("CODA_TEST_IDENTITIES", "1")
        patch.setenv("PYTHONPATH", str(root / "tests" / "flow" / "identities"), prepend=":")
        return run_until_settled(
            "lab_c/guarded", settings, loop.params, tmp_path_factory.mktemp("work"), "lab_a", lambda line: None
        )


def test_the_whole_loop_needs_no_right_beyond_the_policies(adapted, keeper):
    assert keeper.refused == []
    assert adapted["outcome"] in ("released", "incumbent_kept"), adapted
    assert {identity for identity, _ in keeper.asked} == set(IDENTITIES) - OF_TRAINING - {"quality_verdict"}


def test_every_right_of_a_policy_is_needed(adapted, keeper):
    exercised = {CLASSES[identity] for identity, _ in keeper.asked}
    granted = {(name, s["Sid"]) for name, rules in keeper.policies.items() if name in exercised for s in rules}
    assert granted - keeper.needed == set(NOT_NEEDED_HERE)
