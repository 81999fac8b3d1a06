"""The fast loop: what is chosen for a change, and in which order."""

import pytest

from tests.quick import ROOT, Minute, module_of, nearest

TESTS = sorted((ROOT / "tests").glob("**/test_*.py"))


def chosen(*changed: str) -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in nearest(changed, TESTS)]


def test_tests_of_the_changed_module_come_before_those_of_what_uses_it():
    found = chosen("coda/evaluation/metrics/sign_flips.py")
    assert found[0] == "tests/evaluation/test_sign_flips.py"
    assert "tests/evaluation/test_gate_decisions.py" in found, "by a helper beside the tests"


def test_a_changed_test_comes_first():
    found = chosen("coda/evaluation/metrics/sign_flips.py", "tests/trigger/test_trigger_pages.py")
    assert found[0] == "tests/trigger/test_trigger_pages.py"


def test_what_no_test_imports_chooses_nothing():
    assert chosen("docs/gate.md", "coda/no_such_module.py") == []


@pytest.mark.parametrize(("path", "module"), [
    ("coda/evaluation/gate/decide.py", "coda.evaluation.gate.decide"),
    ("coda/monitoring/__init__.py", "coda.monitoring"),
    ("coda/monitoring/report/style.css", "coda.monitoring.report"),
    ("pipelines/compile.py", "pipelines.compile"),
    ("docs/gate.md", None),
])  # fmt: skip
def test_the_module_of_a_file(path, module):
    assert module_of(path) == module


def test_a_session_ends_when_its_time_is_over():
    class Session:
        shouldstop = ""

    plugin = Minute(-1.0)
    plugin.pytest_sessionstart(Session())
    plugin.pytest_runtest_logfinish("tests/test_a.py::test_b")
    assert "make test" in plugin.session.shouldstop
