"""Writes what requirements.lock puts into the image as a CycloneDX bill of materials, and checks it by the schema.

Needs no network. Licences are those that the packages of this environment declare, where their versions are the lock's.
"""

import argparse
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

ROOT = Path(__file__).resolve().parent.parent
_PIN = re.compile(
    r"^([A-Za-z0-9][\w.-]*)(?:\[[^]]*\])?==(\S+)((?:\s*\\\n\s+--hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE
)


def locked(text: str) -> dict[str, tuple[str, list[str]]]:
    """Return package -> version and SHA-256 of each of its files, out of a lock's text."""
    return {
        name.lower(): (version, re.findall(r"sha256:(\w+)", hashes)) for name, version, hashes in _PIN.findall(text)
    }


def bill(lock: str, version: str) -> Bom:
    """Return the bill of materials of a lock."""
    root = Component(name="coda-pipeline", version=version, type=ComponentType.APPLICATION, bom_ref="coda-pipeline")
    root.licenses.add(LicenseFactory().make_from_string("Apache-2.0"))
    bom = Bom()
    bom.metadata.component = root
    parts = []
    for name, (pinned, hashes) in sorted(locked(lock).items()):
        url = PackageURL("pypi", name=name, version=pinned)
        part = Component(name=name, version=pinned, type=ComponentType.LIBRARY, purl=url, bom_ref=str(url))
        # a version has a file for each platform; which one is installed, pip decides
        files = [HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in hashes]
        part.external_references.add(
            ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(str(url)), hashes=files)
        )
        if (declared := licence(name, pinned)) is not None:
            part.licenses.add(LicenseFactory().make_from_string(declared))
        parts.append(part)
        bom.components.add(part)
    bom.register_dependency(root, parts)
    return bom


def licence(name: str, version: str) -> str | None:
    """Return the licence that an installed package declares, if it is of this version."""
    try:
        found = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    if str(found["Version"]).partition("+")[0] != version:
        return None
    named = found.get("License-Expression") or found.get("License")
    return named if named and "\n" not in named and len(named) < 80 else None


def faults(text: str) -> list[str]:
    """Return what CycloneDX's schema says against a document; nothing of a valid one."""
    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text, all_errors=True)
    return [str(fault) for fault in found or ()]


def main() -> int:
    """Write the file; 0 when it is valid."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lock", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    text = JsonV1Dot6(bill(given.lock.read_text(), version)).output_as_string(indent=1)
    wrong = faults(text)
    print(*wrong, sep="\n", file=sys.stderr)
    given.out.write_text(text + "\n")
    print(f"{given.out}: {len(locked(given.lock.read_text()))} packages, CycloneDX 1.6")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
