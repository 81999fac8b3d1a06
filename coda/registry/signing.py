"""Detached signatures of registered models (OpenSSF model signing); optional, with the extra ``[signing]``.

Digests say that a model is the one that was recorded. A signature says who recorded it: whoever may write to the
registry and its bucket, but does not hold the private key, cannot make a model that is loaded (decision 0009).
"""

import hashlib
import re
from pathlib import Path
from typing import Any

from coda.errors import ConfigError, IntegrityError, Problem

SUFFIX = ".sig"


def sign(path: Path, key: str) -> Path:
    """Sign a folder (every file, by name) or a file.

    Args:
        path: Folder or file; must not change afterwards.
        key: PEM file of an elliptic-curve private key without a password.

    Returns:
        The signature beside it: ``<path>.sig``, a Sigstore bundle.

    Raises:
        ConfigError: The library or the key is missing or cannot be used.
    """
    signature = path.with_name(path.name + SUFFIX)
    try:
        signer = _library().signing.Config().use_elliptic_key_signer(private_key=Path(key))
    except (OSError, ValueError, TypeError) as error:
        raise _unusable("CODA_SIGNING_KEY", key, error, "an elliptic-curve private key in PEM") from error
    signer.sign(path, signature)
    return signature


def require_signature(path: Path, signature: Path, key: str, where: str) -> None:
    """Refuse a folder or file that the holder of a key did not sign as it is.

    Raises:
        IntegrityError: There is no signature, it is another key's, or a file is not the signed one (named).
        ConfigError: The library or the key is missing or cannot be used.
    """
    try:
        verifier = _library().verifying.Config().use_elliptic_key_verifier(public_key=Path(key))
    except (OSError, ValueError, TypeError) as error:
        raise _unusable("CODA_VERIFY_KEY", key, error, "an elliptic-curve public key in PEM") from error
    remedy = "Do not use this model. Find out who registered it; sign it again only if you know where it comes from."
    if not signature.is_file():
        problem = Problem(f"{where}{SUFFIX}", "no signature", f"one by the key in {key}", remedy)
        raise IntegrityError(f"{where} is not signed.", [problem])
    try:
        verifier.verify(path, signature)
    except Exception as error:  # what a forged bundle makes the parsers of several libraries raise is not one class
        problem = Problem(
            f"{where}{SUFFIX}", _in_words(error), f"a signature of these files by the key in {key}", remedy
        )
        raise IntegrityError(f"The signature of {where} does not hold.", [problem]) from error


def fingerprint(key: str) -> str:
    """Return the SHA-256 of a private key's public half (DER), which names the key without showing it."""
    from cryptography.hazmat.primitives import serialization

    try:
        private = serialization.load_pem_private_key(Path(key).read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise _unusable("CODA_SIGNING_KEY", key, error, "an elliptic-curve private key in PEM") from error
    public = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(public).hexdigest()


def _in_words(error: Exception) -> str:
    # the library prints digests as Python bytes; the names are what a person needs
    words = " ".join(str(error).replace("\\", "").split())
    if changed := re.findall(r"Hash mismatch for '([^']+)'", words):
        return f"other bytes in {', '.join(changed)}"
    return words[:300] or type(error).__name__


def _library() -> Any:
    try:
        import model_signing
    except ImportError as error:
        remedy = "Install coda-pipeline[signing], or unset CODA_SIGNING_KEY and CODA_VERIFY_KEY."
        problem = Problem("model_signing", str(error), "the OpenSSF model signing library", remedy)
        raise ConfigError("Models cannot be signed or verified here.", [problem]) from error
    return model_signing


def _unusable(variable: str, key: str, error: Exception, expected: str) -> ConfigError:
    found = " ".join(str(error).split())[:200]
    problem = Problem(f"{variable}={key}", found, expected, "docs/registry.md, Sign models, says how to make a pair.")
    return ConfigError("The key cannot be used.", [problem])
