"""Commands that a checkout of the repository has and an installed package has not: benchmarks and studies.

Nobody runs them on data of his own, so the wheel leaves them out. They are looked for beside this package and nowhere
else: `benchmarks` is a name that other projects use, too.
"""

import importlib
import sys
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

import coda
from coda.errors import ConfigError, Problem

ROOT = Path(coda.__file__).resolve().parent.parent
"""Folder that holds the package: the checkout, or the environment's packages."""

COMMANDS = {
    "benchmarks.benchmark_commands": ("speed", "ingest", "scale", "drift"),
    "studies.study_commands": ("granularity", "cka", "umap", "options", "calibrate", "policies", "plate-checks"),
}
"""Module of a package beside this one -> commands that it adds to `coda benchmark`."""


class CheckoutGroup(TyperGroup):
    """A group that knows the commands which only a checkout has."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that is called.

        Raises:
            ConfigError: It is one that only a checkout has, and this is none.
        """
        if args[0] in missing_commands(ROOT):
            problem = Problem(
                f"coda benchmark {args[0]}", f"a package installed in {ROOT}", "a checkout of the repository",
                f"Clone the repository, run `make setup` in it, then `.venv/bin/coda benchmark {args[0]}`.",
            )  # fmt: skip
            raise ConfigError("The installed package has no such command: it comes with a checkout.", [problem])
        return super().resolve_command(ctx, args)


def missing_commands(root: Path) -> list[str]:
    """Return the commands whose package does not lie in a folder."""
    return [name for module, names in COMMANDS.items() if not _lies_in(root, module) for name in names]


def add_checkout_commands(app: typer.Typer, root: Path = ROOT) -> None:
    """Add the commands of the packages that lie beside this one; none in an installed package."""
    for module in COMMANDS:
        if _lies_in(root, module):
            # an editable install maps the packages of the wheel alone
            if str(root) not in sys.path:
                sys.path.insert(0, str(root))
            importlib.import_module(module).add_to(app)


def _lies_in(root: Path, module: str) -> bool:
    return root.joinpath(*module.split(".")).with_suffix(".py").is_file()
