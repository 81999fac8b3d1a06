"""Registered versions: MLflow's own API is the oracle for what our loader brings, and the other way round."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest_registry import Trained, provenance
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.store.entities.paged_list import PagedList
from servers import free_port

from coda.contracts import ModelRef, ReleaseRecord
from coda.errors import ConfigError, IntegrityError, TransientError
from coda.networks.extractor import load_extractor
from coda.networks.head import load_head
from coda.registry import (
    EXTRACTOR,
    HEAD,
    describe,
    fetch,
    fetch_state,
    find,
    list_versions,
    register_extractor,
    register_head,
)
from coda.registry.pyfunc import _load_pyfunc
from coda.settings import Settings
from coda.training.methods.dino.state import load_state


def artifacts(settings: Settings, name: str) -> list[Path]:
    """Stored copies of a file over all versions."""
    root = Path(settings.mlflow_artifacts.removeprefix("file://"))
    return sorted(root.rglob(name))


def test_what_is_registered_comes_back_byte_for_byte(
    services: Settings, trained: Trained, tmp_path: Path, release_of: Callable[..., ReleaseRecord]
) -> None:
    record = release_of(trained)
    pairs = [
        (fetch(record.extractor, tmp_path / "e", settings=services), trained.pretrained / "extractor"),
        (fetch_state(record.extractor, tmp_path / "s", settings=services), trained.pretrained / "state"),
        (fetch(record.heads[1], tmp_path / "h", settings=services), trained.heads / "standardise"),
    ]
    for fetched, original in pairs:
        assert {p.name: p.read_bytes() for p in fetched.iterdir()} == {
            p.name: p.read_bytes() for p in original.iterdir()
        }
    assert load_head(tmp_path / "h").alignment == "standardise"
    assert torch.equal(load_state(tmp_path / "s").centre, load_state(trained.pretrained / "state").centre)
    with pytest.raises(ConfigError, match="no adaptation state"):
        fetch_state(record.head, tmp_path / "n", settings=services)


def test_tags_say_where_a_version_comes_from(services: Settings, release_of, trained: Trained) -> None:
    record = release_of(trained)
    head = describe(record.heads[1], settings=services)
    assert head.tags["kind"] == "head"
    assert head.tags["alignment"] == "standardise"
    assert head.tags["line"] == record.extractor.digest
    assert head.tags["extractor_version"] == str(record.extractor.version)
    assert head.tags["width"] == "24"
    assert head.tags["source"] == "lab_a"
    stored = json.loads(artifacts(services, "provenance.json")[0].read_text())
    assert stored["params_digest"] == "0" * 64
    assert [version.name for version in list_versions(services)] == [EXTRACTOR, HEAD, HEAD]


def test_registering_again_gives_the_same_version(services: Settings, trained: Trained, other_line: Trained) -> None:
    def register(folders: Trained, run_id: str) -> ModelRef:
        path = folders.pretrained
        return register_extractor(path / "extractor", path / "state", provenance(run_id), settings=services)

    first = register(trained, "run-1")
    assert register(trained, "run-1") == first
    assert register(trained, "run-2").version == 2
    assert register(other_line, "run-1").version == 3  # the run was repeated and came out differently
    assert len(list_versions(services)) == 3


def test_registering_at_once_leaves_one_version(services: Settings, trained: Trained) -> None:
    path = trained.pretrained
    register_extractor(path / "extractor", None, provenance("before"), settings=services)
    with ThreadPoolExecutor(4) as pool:
        refs = list(
            pool.map(
                lambda _: register_extractor(path / "extractor", None, provenance("same"), settings=services), range(4)
            )
        )
    left = find(EXTRACTOR, settings=services, run_id="same")
    assert {ref.version for ref in refs} == {left[0].ref.version}
    assert len(left) == 1


def test_a_version_deleted_while_it_is_looked_for_is_not_found(
    services: Settings, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = register_extractor(trained.pretrained / "extractor", None, provenance("gone"), settings=services)
    search = MlflowClient.search_model_versions

    def search_then_delete(client: MlflowClient, *arguments: object, **options: object) -> PagedList[ModelVersion]:
        found = search(client, *arguments, **options)
        client.delete_model_version(ref.name, str(ref.version))
        # what MLflow's second query, for the tags, leaves of it
        return PagedList(
            [ModelVersion(item.name, item.version, item.creation_timestamp) for item in found], found.token
        )

    monkeypatch.setattr(MlflowClient, "search_model_versions", search_then_delete)
    assert find(EXTRACTOR, settings=services) == []


def test_mlflow_loads_the_same_networks(services: Settings, release_of, trained: Trained, tmp_path: Path) -> None:
    """In another process, with nothing but MLflow's API: no code of ours is called by name, nothing is unpickled."""
    record = release_of(trained)
    images = np.random.default_rng(0).normal(size=(2, 3, 48, 48)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    script = (
        "import sys, numpy as np, mlflow\n"
        "extractor = mlflow.pyfunc.load_model('models:/coda-extractor/1')\n"
        "head = mlflow.pyfunc.load_model('models:/coda-head/1')\n"
        "tokens = extractor.predict(np.load(sys.argv[1] + '/images.npy'))\n"
        "np.save(sys.argv[1] + '/tokens.npy', tokens)\n"
        "np.save(sys.argv[1] + '/probabilities.npy', head.predict(tokens))\n"
    )
    environment = {**os.environ, **services.environment, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, check=True, cwd=tmp_path)
    extractor = load_extractor(fetch(record.extractor, tmp_path / "e", settings=services))
    head = load_head(fetch(record.heads[0], tmp_path / "h", settings=services))
    # the networks record bfloat16, and are run in it
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        tokens = extractor(torch.from_numpy(images)).float()
        logits = head(tokens).float()
    np.testing.assert_allclose(np.load(tmp_path / "tokens.npy"), tokens.numpy(), atol=0.05)
    np.testing.assert_allclose(np.load(tmp_path / "probabilities.npy"), torch.softmax(logits, dim=-1), atol=0.01)
    assert np.load(tmp_path / "probabilities.npy").sum(axis=1) == pytest.approx([1, 1])
    suffixes = {path.suffix for path in artifacts(services, "*") if path.is_file()}
    assert suffixes <= {".safetensors", ".json", ".yaml", ".txt", ".md", ""}


def test_stored_pixels_are_normalised_image_by_image(trained: Trained, tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "model").symlink_to(trained.pretrained / "extractor")
    model = _load_pyfunc(str(package))
    pixels = np.random.default_rng(0).integers(0, 200, size=(2, 3, 48, 48), dtype=np.uint8)
    tokens = model.predict(pixels)
    assert tokens.shape == (2, 10, 24)
    # the network records bfloat16, whose steps are 0.4 percent
    np.testing.assert_allclose(model.predict(pixels + np.uint8(50)), tokens, atol=0.05)  # brightness does not matter
    floats = (pixels - pixels.mean((2, 3), keepdims=True)) / pixels.std((2, 3), keepdims=True, ddof=1)
    np.testing.assert_allclose(model.predict(floats.astype(np.float32)), tokens, atol=0.05)
    with pytest.raises(ConfigError, match="48 x 48 pixels"):
        model.predict(pixels[:, :, :32, :32])
    for wrong in (pixels[0], pixels.astype(np.int64)):
        with pytest.raises(ConfigError, match="array"):
            model.predict(wrong)
    with pytest.raises(ConfigError, match="temperature"):
        model.predict(pixels, params={"temperature": 1})


@pytest.mark.parametrize("name", ["weights.safetensors", "config.json", "digests.json"])
def test_one_changed_byte_is_refused_by_name(services: Settings, trained: Trained, tmp_path: Path, name: str) -> None:
    ref = register_extractor(trained.pretrained / "extractor", None, provenance(), settings=services)
    stored = artifacts(services, name)[0]
    content = bytearray(stored.read_bytes())
    content[len(content) // 2] ^= 1
    stored.write_bytes(content)
    with pytest.raises(IntegrityError, match=name if name != "digests.json" else "digest"):
        fetch(ref, tmp_path / "out", settings=services)
    assert not (tmp_path / "out").exists()
    with pytest.raises(IntegrityError):
        _load_pyfunc(str(stored.parent.parent))


def test_lost_or_foreign_versions_are_refused(services: Settings, trained: Trained, tmp_path: Path) -> None:
    ref = register_extractor(trained.pretrained / "extractor", None, provenance(), settings=services)
    with pytest.raises(ConfigError, match="version 7"):
        fetch(ref.model_copy(update={"version": 7}), tmp_path / "out", settings=services)
    with pytest.raises(IntegrityError, match="other"):
        fetch(ref.model_copy(update={"digest": "0" * 64}), tmp_path / "out", settings=services)
    artifacts(services, "weights.safetensors")[0].unlink()
    with pytest.raises(IntegrityError, match="weights"):
        fetch(ref, tmp_path / "out", settings=services)


def test_a_folder_that_is_not_what_it_says_is_not_registered(services: Settings, trained: Trained) -> None:
    with pytest.raises(ConfigError, match="kind 'head'"):
        register_extractor(trained.heads / "none", None, provenance(), settings=services)
    with pytest.raises(ConfigError, match="kind 'extractor'"):
        register_extractor(
            trained.pretrained / "extractor", trained.pretrained / "extractor", provenance(), settings=services
        )
    extractor = register_extractor(trained.pretrained / "extractor", None, provenance(), settings=services)
    with pytest.raises(ConfigError, match="kind 'adaptation_state'"):
        register_head(trained.pretrained / "state", extractor, provenance(), settings=services)
    assert len(list_versions(services)) == 1


def test_a_registration_that_breaks_off_leaves_no_version(
    services: Settings, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    folder = trained.pretrained / "extractor"
    with monkeypatch.context() as patch:

        def broken(*_: object, **__: object) -> None:
            raise ConnectionError("gone")

        patch.setattr(MlflowClient, "finalize_logged_model", broken)
        with pytest.raises(TransientError, match="gone"):
            register_extractor(folder, None, provenance(), settings=services)
    assert list_versions(services) == []
    assert register_extractor(folder, None, provenance(), settings=services).version == 1


def test_an_mlflow_server_that_is_away_is_transient(services: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = services.model_copy(update={"mlflow_uri": f"http://127.0.0.1:{free_port()}"})
    with pytest.raises(TransientError, match="MLflow"):
        list_versions(away)


def test_looking_needs_no_heavy_library() -> None:
    script = (
        "import sys, coda.registry, coda.cli.registry\n"
        "print(sorted({'torch', 'mlflow', 'dvc', 'kfp'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
