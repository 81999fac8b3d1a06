"""A kept result of other code is never taken for this one's: the files behind a number are part of its name."""

import json
import shutil
import subprocess
import sys

import pytest

from coda.benchmark import job as job_module
from coda.benchmark.adapting import Adapting
from coda.benchmark.job import Job, read_job, write_job
from coda.benchmark.source_models import Training
from coda.benchmark.sources import BESIDE, PACKAGE, sources_digest, sources_of
from studies.gate_calibration.calibration_target import Target

TASKS = {kind.__module__ for kind in (Training, Adapting, Target)}


@pytest.fixture(scope="session")
def copy(tmp_path_factory):
    """The package's sources and those beside it, to change."""
    folder = tmp_path_factory.mktemp("copied")
    for name in (PACKAGE.name, *BESIDE):
        shutil.copytree(PACKAGE.parent / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder / PACKAGE.name


@pytest.mark.parametrize("module", sorted(TASKS))
def test_imports_are_followed_as_python_follows_them(module):
    """Against the interpreter: whatever importing the module loads from the package is among its sources."""
    ours = (PACKAGE.name, *BESIDE)
    script = f"import json, sys, {module}; print(json.dumps([n for n in sys.modules if n.split('.')[0] in {ours}]))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout)
    assert set(loaded) <= set(sources_of(module))


@pytest.mark.parametrize("module", sorted(TASKS))
@pytest.mark.parametrize(
    "source",
    ["networks/extractor.py", "training/methods/dino/loss.py", "adaptation/serving.py", "plates/dataset.py",
     "evaluation/metrics/accuracy.py", "networks/weights.py", "simulation/laboratories.py", "benchmark/scoring.py",
     "__init__.py"],
)  # fmt: skip
def test_a_changed_source_gives_another_name(copy, module, source):
    before = sources_digest(module, copy)
    path = copy / source
    content = path.read_bytes()
    path.write_bytes(content + b"\nCHANGED = 1\n")
    try:
        assert sources_digest(module, copy) != before
    finally:
        path.write_bytes(content)
    assert sources_digest(module, copy) == before


def test_a_changed_source_beside_the_package_gives_another_name(copy):
    module, path = Target.__module__, copy.parent / "studies" / "metrics" / "kbet.py"
    before, content = sources_digest(module, copy), path.read_bytes()
    path.write_bytes(content + b"\nCHANGED = 1\n")
    assert sources_digest(module, copy) != before
    path.write_bytes(content)
    assert sources_digest(Training.__module__, copy) == sources_digest(Training.__module__), "the copy is whole"


def test_what_has_no_part_in_the_numbers_changes_no_name(copy):
    module, path = Training.__module__, copy / "cli" / "__init__.py"
    before, content = sources_digest(module, copy), path.read_bytes()
    path.write_bytes(content + b"\nCHANGED = 1\n")
    assert sources_digest(module, copy) == before
    path.write_bytes(content)


def test_relative_imports_and_those_of_functions_count(tmp_path):
    package = tmp_path / "pack"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "inner" / "__init__.py").write_text("from . import deep\n")
    (package / "inner" / "deep.py").write_text("from ..far import VALUE\n")
    (package / "far.py").write_text("VALUE = 1\n")
    (package / "late.py").write_text("")
    (package / "apart.py").write_text("")
    (package / "top.py").write_text("from pack.inner.deep import VALUE\n\n\ndef f():\n    import pack.late\n")
    assert set(sources_of("pack.top", package)) == {
        "pack", "pack.top", "pack.inner", "pack.inner.deep", "pack.far", "pack.late",
    }  # fmt: skip


def test_what_is_imported_by_a_name_that_is_put_together_is_followed(tmp_path):
    package = tmp_path / "pack"
    (package / "methods" / "one").mkdir(parents=True)
    for path in ("__init__", "methods/__init__", "methods/one/__init__", "methods/one/method", "apart"):
        (package / f"{path}.py").write_text("")
    (package / "top.py").write_text(
        "from importlib import import_module\n\n\ndef f(x):\n    return import_module(f'pack.methods.{x}.method')\n"
    )
    assert set(sources_of("pack.top", package)) == {
        "pack", "pack.top", "pack.methods", "pack.methods.one", "pack.methods.one.method",
    }  # fmt: skip


def test_a_job_of_other_code_is_not_read(tmp_path, monkeypatch):
    kept = Job("one", {"k": 1}, object())
    write_job(kept, tmp_path, {"value": 1}, 1.0)
    assert read_job(Job("one", {"k": 1}, object()), tmp_path).result == {"value": 1}
    monkeypatch.setattr(job_module, "sources_digest", lambda module: f"other code of {module}")
    stale = Job("one", {"k": 1}, object())
    assert read_job(stale, tmp_path) is None
    assert stale.folder(tmp_path) != kept.folder(tmp_path)
    # and with it all that builds upon it
    assert Job("two", {"k": 2}, after=(stale,)).digest != Job("two", {"k": 2}, after=(kept,)).digest
