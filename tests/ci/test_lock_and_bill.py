"""requirements.lock agrees with pyproject.toml and constraints.txt, the image takes nothing else, its bill is valid."""

import importlib.metadata
import importlib.util
import json
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OF_THE_IMAGE = {
    "python_version": "3.11",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
}
EXTRAS = ("postgres", "signing")
WITH_CUDA = re.compile(r"nvidia-|cuda-|triton$|setuptools$")
"""What only torch's build with CUDA needs; the environment of the tests may have another one."""


@pytest.fixture(scope="module")
def bill(root):
    spec = importlib.util.spec_from_file_location("sbom", root / ".ci" / "sbom.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def text(root):
    return (root / "requirements.lock").read_text()


@pytest.fixture(scope="module")
def locked(bill, text):
    return {canonicalize_name(name): found for name, found in bill.locked(text).items()}


def asked(requirements, extras=()):
    """Requirements that hold for the image."""
    for requirement in map(Requirement, requirements or ()):
        markers = [{**OF_THE_IMAGE, "extra": extra} for extra in ("", *extras)]
        if requirement.marker is None or any(requirement.marker.evaluate(marker) for marker in markers):
            yield requirement


def test_every_line_of_the_lock_has_hashes(text, locked):
    assert len(locked) == len([line for line in text.splitlines() if "==" in line]) >= 200
    assert all(hashes for _, hashes in locked.values())
    assert not re.search(r"://|^-", text, re.MULTILINE), "no place of a package, and no option"


def test_versions_are_those_of_the_constraints(root, locked):
    pins = dict(line.split("==") for line in (root / "constraints.txt").read_text().split() if "==" in line)
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    others = {name for name, (version, _) in locked.items() if pins.get(name) != version}
    assert {name for name in others if not WITH_CUDA.match(name)} == set(), "run `make lock`"


def test_the_lock_is_what_the_project_needs_and_nothing_else(root, locked):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(line for name in EXTRAS for line in project["optional-dependencies"][name])]
    seen, waiting = {}, [(item.name, item.specifier, item.extras) for item in asked(wanted)]
    while waiting:
        name, specifier, extras = waiting.pop()
        name = canonicalize_name(name)
        assert name in locked, f"{name} is not in the lock: run `make lock`"
        assert specifier.contains(locked[name][0], prereleases=True), name
        new = set(extras) - seen.get(name, {None})
        if name in seen and not new:
            continue
        seen[name] = seen.get(name, set()) | set(extras)
        requires = importlib.metadata.requires(name) if not WITH_CUDA.match(name) else ()
        waiting += [(item.name, item.specifier, item.extras) for item in asked(requires, seen[name])]
    assert {name for name in set(locked) - set(seen) if not WITH_CUDA.match(name)} == set(), "run `make lock`"


def test_the_image_installs_by_hash_and_fetches_nothing_else(root):
    dockerfile = (root / "docker" / "Dockerfile").read_text().replace("\\\n", " ")
    installs = re.findall(r"pip install [^;&\n]*", dockerfile)
    assert len(installs) == 4
    for command in installs:
        assert "--no-deps" in command
        assert "--require-hashes" in command or "--no-index" in command, command
        # what builds a package is locked, too
        assert "first.lock" in command or ".whl" in command or "--no-build-isolation" in command, command
    assert "!requirements.lock" in (root / ".dockerignore").read_text().splitlines()


def test_the_bill_of_materials_is_valid_and_complete(root, bill, text, tmp_path, monkeypatch, capsys):
    out = tmp_path / "sbom.json"
    monkeypatch.setattr("sys.argv", ["sbom", str(root / "requirements.lock"), str(out)])
    assert bill.main() == 0
    assert "CycloneDX 1.6" in capsys.readouterr().out
    document = json.loads(out.read_text())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    parts = {
        part["name"]: (part["version"], {h["content"] for ref in part["externalReferences"] for h in ref["hashes"]})
        for part in document["components"]
    }
    assert parts == {name: (version, set(hashes)) for name, (version, hashes) in bill.locked(text).items()}
    licensed = [part for part in document["components"] if part.get("licenses")]
    assert len(licensed) >= 150
    assert document["metadata"]["component"]["name"] == "coda-pipeline"
    (root_part,) = [item for item in document["dependencies"] if item["ref"] == "coda-pipeline"]
    assert len(root_part["dependsOn"]) == len(parts)


def test_a_broken_bill_is_told(bill, text):
    document = json.loads(json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": []}))
    assert bill.faults(json.dumps(document)) == []
    document["components"] = [{"name": "torch", "type": "a thing"}]
    assert any("a thing" in fault for fault in bill.faults(json.dumps(document)))
