"""The adaptation pipeline in containers of the project's own image."""

import os

import pytest

from coda.errors import CodaError
from coda.local.services import EmbeddedServices
from coda.registry.releases import ReleaseLog
from tests.flow.loop import Loop, smoke_params

pytestmark = [pytest.mark.services, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def loop(tmp_path_factory, root):
    image = os.environ.get("CODA_TEST_IMAGE")
    if image is None:
        pytest.skip("no image was built: make test-services starts a Docker engine and builds it")
    before = dict(os.environ)
    folder = tmp_path_factory.mktemp("containers")
    with EmbeddedServices(folder / "services") as services:
        found = Loop(folder, services, smoke_params(root))
        found.train()
        services.settings = services.settings.model_copy(update={"image": image})
        os.environ["CODA_IMAGE"] = image
        yield found
    os.environ.clear()
    os.environ.update(before)


def test_a_batch_is_adapted_in_containers(loop):
    manifest = loop.deliver("lab_b", "b1")
    outcome = loop.adapt(manifest, "docker-lab-b", runner="docker")
    assert outcome.outcome in ("released", "incumbent_kept")
    assert outcome.record.image == os.environ["CODA_TEST_IMAGE"]
    assert ReleaseLog(loop.settings).serving("lab_b") is not None


def test_a_failed_container_is_a_failed_run(loop):
    with pytest.raises(CodaError, match="nowhere"):
        loop.adapt(f"{loop.settings.landing}/lab_b/nowhere/manifest.json", "docker-fails", runner="docker")
