"""Signatures: whoever may write to the registry but lacks the private key cannot make a model that is loaded."""

import sys
from pathlib import Path

import pytest
from conftest_registry import Trained, provenance
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from coda.contracts import ModelRef
from coda.errors import ConfigError, IntegrityError
from coda.networks import artifact
from coda.registry import describe, fetch, fetch_state, register_extractor
from coda.registry.pyfunc import _load_pyfunc
from coda.registry.signing import require_signature, sign
from coda.registry.verification import verify_version
from coda.settings import Settings

pytest.importorskip("model_signing", reason="the extra [signing] is not installed")


def key_pair(folder: Path, name: str) -> tuple[str, str]:
    private = ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    secret, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    secret.write_bytes(private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    public.write_bytes(private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return str(secret), str(public)


@pytest.fixture
def signed(services: Settings, tmp_path: Path) -> Settings:
    """Settings that sign at registration and ask for the signature at every fetch."""
    private, public = key_pair(tmp_path, "ours")
    return services.model_copy(update={"signing_key": private, "verify_key": public})


def register(settings: Settings, trained: Trained) -> ModelRef:
    folder = trained.pretrained
    return register_extractor(folder / "extractor", folder / "state", provenance(), settings=settings)


def stored(settings: Settings, name: str) -> Path:
    return next(Path(settings.mlflow_artifacts.removeprefix("file://")).rglob(name))


def test_a_signed_version_is_fetched_and_says_who_signed(signed: Settings, trained: Trained, tmp_path: Path) -> None:
    ref = register(signed, trained)
    assert fetch(ref, tmp_path / "e", settings=signed).is_dir()
    assert fetch_state(ref, tmp_path / "s", settings=signed).is_dir()
    version = describe(ref, settings=signed)
    assert len(version.tags["signed_by"]) == 64
    assert verify_version(version, settings=signed) == []


def test_a_model_forged_whole_is_refused(
    signed: Settings, trained: Trained, other_line: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Digests alone would pass: the forger writes files, their list, and the registry's tag alike."""
    from coda.registry.mlflow_client import connect

    register(signed, trained)
    model = stored(signed, "model.sig").with_name("model")
    for path in (other_line.pretrained / "extractor").iterdir():
        (model / path.name).write_bytes(path.read_bytes())
    forged = ModelRef(name="coda-extractor", version=1, digest=artifact.folder_digest(model))
    connect(signed).set_model_version_tag("coda-extractor", "1", "digest", forged.digest)
    careless = signed.model_copy(update={"verify_key": None})
    assert fetch(forged, tmp_path / "careless", settings=careless).is_dir()
    with pytest.raises(IntegrityError, match=r"weights\.safetensors"):
        fetch(forged, tmp_path / "careful", settings=signed)
    assert not (tmp_path / "careful").exists()
    monkeypatch.setenv("CODA_VERIFY_KEY", signed.verify_key)
    with pytest.raises(IntegrityError, match=r"weights\.safetensors"):
        _load_pyfunc(str(model.parent))


def test_another_key_and_no_signature_are_refused(signed: Settings, trained: Trained, tmp_path: Path) -> None:
    ref = register(signed, trained)
    _, strange = key_pair(tmp_path, "strange")
    with pytest.raises(IntegrityError, match="key"):
        fetch(ref, tmp_path / "e", settings=signed.model_copy(update={"verify_key": strange}))
    for name in ("model.sig", "state.sig", "files.json.sig"):
        stored(signed, name).unlink()
    for get in (fetch, fetch_state):
        with pytest.raises(IntegrityError, match="not signed"):
            get(ref, tmp_path / "e", settings=signed)
    assert len(verify_version(describe(ref, settings=signed), settings=signed)) == 3
    unsigned = signed.model_copy(update={"verify_key": None})
    assert fetch(ref, tmp_path / "e", settings=unsigned).is_dir()


@pytest.mark.parametrize("content", [b"", b"{}", b"[1, 2]", b"\xff\xfe", b'{"dsseEnvelope": {}, "mediaType": 1}'])
def test_a_signature_of_any_bytes_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    private, public = key_pair(tmp_path, "ours")
    (tmp_path / "file").write_bytes(b"1")
    signature = sign(tmp_path / "file", private)
    require_signature(tmp_path / "file", signature, public, "file")
    signature.write_bytes(content)
    with pytest.raises(IntegrityError, match="does not hold"):
        require_signature(tmp_path / "file", signature, public, "file")


def test_a_key_or_library_that_is_missing_is_said_before_anything_is_stored(
    services: Settings, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = key_pair(tmp_path, "ours")
    for key in (str(tmp_path / "none.pem"), public):
        with pytest.raises(ConfigError, match="CODA_SIGNING_KEY"):
            register(services.model_copy(update={"signing_key": key}), trained)
    assert not any(Path(services.mlflow_artifacts.removeprefix("file://")).rglob("*.safetensors"))
    ref = register(services, trained)
    for key in (str(tmp_path / "none.pem"), private):
        with pytest.raises(ConfigError, match="CODA_VERIFY_KEY"):
            fetch(ref, tmp_path / "e", settings=services.model_copy(update={"verify_key": key}))
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(ConfigError, match=r"coda-pipeline\[signing\]"):
        fetch(ref, tmp_path / "e", settings=services.model_copy(update={"verify_key": public}))
