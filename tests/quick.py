"""The tests of what changed, nearest first, for at most a minute: `make quick`, or `make quick BASE=main`.

Near are changed tests, then tests that import a changed module, then tests that import a module that imports one, and
so on. It is for the loop of a change and proves nothing: `make test` does.
"""

import argparse
import ast
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("coda", "components", "pipelines", "benchmarks", "studies")
FARTHEST = 3
LEFT_OUT = "not services and not soak and not faults"


def changed_files(base: str) -> set[str]:
    """Return the files that differ from a commit, and those that git does not know yet."""
    asked = (["diff", "--name-only", base, "--"], ["ls-files", "--others", "--exclude-standard"])
    told = [subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True) for words in asked]
    return {line for answer in told for line in answer.stdout.splitlines()}


def module_of(path: str) -> str | None:
    """Return the module that a file of one of the packages is; a file beside modules (a template) is its package."""
    if path.split("/", maxsplit=1)[0] not in PACKAGES:
        return None
    where = Path(path)
    named = where.with_suffix("") if where.suffix == ".py" else where.parent
    return ".".join(part for part in named.parts if part != "__init__")


def imported_by(test: Path, helpers: Mapping[str, Path]) -> set[str]:
    """Return the modules that a test file imports, and those of the helpers beside the tests that it imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(test.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    others = [helpers[name.rpartition(".")[2]] for name in found if name.rpartition(".")[2] in helpers]
    return found.union(*(imported_by(other, {}) for other in others if other != test))


def distances(modules: Iterable[str]) -> dict[str, int]:
    """Return how many imports lie between changed modules and each that knows of one, 0 to `FARTHEST`."""
    graph = grimp.build_graph(*PACKAGES)
    found = {name: 0 for name in modules if name in graph.modules}
    border = list(found)
    for step in range(1, FARTHEST + 1):
        beyond = {name for module in border for name in graph.find_modules_that_directly_import(module)}
        border = [name for name in beyond if name not in found]
        found |= dict.fromkeys(border, step)
    return found


def nearest(changed: Iterable[str], tests: Iterable[Path]) -> list[Path]:
    """Return the test files that a change concerns, nearest first."""
    files = set(changed)
    away = distances({name for path in files if (name := module_of(path))})
    helpers = {path.stem: path for path in (ROOT / "tests").rglob("*.py") if not path.stem.startswith(("test_", "__"))}
    ranked = []
    for test in sorted(tests):
        near = [away[name] + 1 for name in imported_by(test, helpers) if name in away]
        rank = 0 if test.relative_to(ROOT).as_posix() in files else min(near, default=None)
        if rank is not None:
            ranked.append((rank, test))
    return [test for _, test in sorted(ranked, key=lambda item: item[0])]


class Minute:
    """Ends a session of pytest after some seconds, and says so."""

    def __init__(self, seconds: float) -> None:
        self.until = time.monotonic() + seconds

    @pytest.hookimpl
    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        if time.monotonic() > self.until:
            message = f"the time was over after {nodeid}; `make test` runs the rest"
            self.session.shouldstop = message

    @pytest.hookimpl
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self.session = session


def main() -> int:
    """Run them; the exit code is pytest's, 0 where nothing changed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="HEAD", help="Commit that the change is held against.")
    parser.add_argument("--seconds", type=float, default=50.0)
    asked = parser.parse_args()
    chosen = nearest(changed_files(asked.base), ROOT.glob("tests/**/test_*.py"))
    if not chosen:
        print(f"Nothing that a test imports differs from {asked.base}.")
        return 0
    print(f"{len(chosen)} test file(s), nearest first: {', '.join(path.name for path in chosen[:5])} ...")
    # in this order: no shuffling, one process
    arguments = ["-q", "-x", "-p", "no:randomly", "-n", "0", "-m", LEFT_OUT, *map(str, chosen)]
    return int(pytest.main(arguments, plugins=[Minute(asked.seconds)]))


if __name__ == "__main__":
    sys.exit(main())
