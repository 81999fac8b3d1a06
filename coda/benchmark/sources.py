"""The sources that a number depends on: every module of the library that is imported on the way to it.

A kept result is only as good as the code that made it. Versions that people must remember to raise are forgotten, so
the files themselves are part of what names a result: those of a module and of all that it imports in the package.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from coda.contracts.base import digest_of_json

PACKAGE = Path(__file__).resolve().parent.parent
"""Folder of the package ``coda``."""

BESIDE = ("benchmarks", "studies")
"""Packages of a checkout that lie beside it and import it."""

LIBRARIES = ("numpy", "scipy", "timm", "torch")
"""Libraries that compute; another version of one may give other numbers."""


def sources_digest(module: str, package: Path = PACKAGE) -> str:
    """Return the SHA-256 of everything that a module's numbers depend on by its code.

    Args:
        module: Dotted name; the digest of one outside the packages names the libraries alone.
        package: Folder of the package, which has the first part of the name.
    """
    return _digest(module, package, _stamp(package))


def sources_of(module: str, package: Path = PACKAGE) -> dict[str, Path]:
    """Return the files of a module and of all that it imports of ours, directly or not, by dotted name.

    An import inside a function counts as well, and so do the packages above each module, whose ``__init__`` runs first.
    """
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _file(name, package)
        if name in found or path is None:
            continue
        found[name] = path
        waiting += _imported(name, path, package)
        waiting += [name.rpartition(".")[0]] if "." in name else []
    return dict(sorted(found.items()))


@cache
def _digest(module: str, package: Path, stamp: object) -> str:
    del stamp  # the same files as before need not be read again
    files = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in sources_of(module, package).items()}
    return digest_of_json({"files": files, "libraries": {name: _version(name) for name in LIBRARIES}})


def _version(library: str) -> str:
    """Return the version of a library; empty where it is absent, so that it computed nothing."""
    try:
        # what a build is called beside its version ('+cpu') says where it runs, not what it computes
        return version(library).partition("+")[0]
    except PackageNotFoundError:
        return ""


def _stamp(package: Path) -> object:
    """Return what changes when a file of the packages does."""
    files = [path for folder in _packages(package).values() for path in sorted(folder.rglob("*.py"))]
    return tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files)


def _packages(package: Path) -> dict[str, Path]:
    """Return the folders of the packages that are followed, by name."""
    return {package.name: package} | {name: package.parent / name for name in BESIDE}


def _file(name: str, package: Path) -> Path | None:
    first, *rest = name.split(".")
    folder = _packages(package).get(first)
    if folder is None:
        return None
    place = folder.joinpath(*rest)
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            return path
    return None


def _imported(name: str, path: Path, package: Path) -> Iterator[str]:
    inside = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = inside.split(".")
            base = ".".join([*above[: len(above) - node.level + 1], *filter(None, [node.module])])
            where = base if node.level else str(node.module)
            # 'from a import b' may name a module b of a package a, or something in a
            yield where
            yield from (f"{where}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call):
            yield from _by_name(node, package)


def _by_name(call: ast.Call, package: Path) -> Iterator[str]:
    """Yield the modules that ``import_module(f"pack.methods.{name}...")`` may import: all below the fixed beginning."""
    given = call.args[0] if call.args and getattr(call.func, "id", "") == "import_module" else None
    first = given.values[0] if isinstance(given, ast.JoinedStr) else None
    if not isinstance(first, ast.Constant):
        return
    start, _, _ = str(first.value).rpartition(".")
    top, *rest = start.split(".")
    folder = _packages(package).get(top)
    if folder is not None:
        for path in sorted(folder.joinpath(*rest).rglob("*.py")):
            inside = path.relative_to(folder).with_suffix("").parts
            yield ".".join([top, *(part for part in inside if part != "__init__")])
