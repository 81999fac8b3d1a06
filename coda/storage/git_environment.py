"""The environment of git and DVC: how they work is chosen here, how they reach a server is the user's own.

A person's ~/.gitconfig names other remotes, ignores folders, signs commits and translates line ends; none of this may
change what a registry holds. Their credentials, proxies, certificates, addresses and trusted folders must stay, or no
private server could be reached. So git reads one file instead of all its own: with the settings of these kinds alone
(docs/registry.md).
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from coda.errors import ConfigError, Problem
from coda.login import login_name
from coda.settings import without_secrets

KEPT = re.compile(r"(credential|http|url|ssh|safe|protocol)\.|core\.(sshcommand|gitproxy|askpass)$")
"""Settings of git, in lower case, that say how to reach a server and whom to trust."""

_OF_ACCESS = re.compile(r"GIT_(SSH|ASKPASS|PROXY|SSL|HTTP|CURL|TRACE|ALLOW_PROTOCOL|PROTOCOL|EXEC_PATH|REDACT)")
"""Variables of git that are left; others turn it to another repository, or change what it does."""

CHOSEN = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "coda", "GIT_AUTHOR_EMAIL": "coda@localhost",
    "GIT_COMMITTER_NAME": "coda", "GIT_COMMITTER_EMAIL": "coda@localhost",
    # what they say is read by programs, too
    "LC_ALL": "C.UTF-8", "LANGUAGE": "",
}  # fmt: skip


@contextmanager
def chosen_environment(home: Path) -> Iterator[dict[str, str]]:
    """Give the variables that git, or a program that reads git's settings, is run with.

    Args:
        home: Home folder where the user has none.

    Raises:
        ConfigError: The user's own git settings cannot be read; with git's words.
    """
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("GIT_") or _OF_ACCESS.match(name)
    }
    # a user number without a name, as containers have it: DVC wants one
    someone = {"USER": login_name(), "LOGNAME": login_name(), "HOME": os.environ.get("HOME") or str(home)}
    with tempfile.NamedTemporaryFile("w", prefix="coda-git-", encoding="utf-8") as file:  # readable by its owner alone
        file.write(_as_file(_kept_settings()))
        file.flush()
        yield {**someone, **inherited, **CHOSEN, "GIT_CONFIG_GLOBAL": file.name}


def _kept_settings() -> list[tuple[str, str | None]]:
    """Return key and value of the user's settings that are kept, in git's order; files they include are followed."""
    try:
        done = subprocess.run(
            ["git", "config", "--list", "--null", "--includes"],
            cwd=os.sep, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="surrogateescape",
            env=_outside_of_repositories(os.environ), timeout=60, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return []  # git itself is the next that is run, and says more
    if done.returncode != 0 and "bad" in done.stderr and "config" in done.stderr:
        words = without_secrets(" ".join(done.stderr.split()))[:300]
        remedy = "Correct the file; `git config --list` shows when it can be read."
        raise ConfigError("git cannot read its settings.", [Problem("~/.gitconfig", words, "git settings", remedy)])
    entries = [entry.partition("\n") for entry in done.stdout.split("\0") if entry]
    return [(key, value if marker else None) for key, marker, value in entries if KEPT.match(key.lower())]


def _outside_of_repositories(variables: Mapping[str, str]) -> dict[str, str]:
    hidden = {"GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_CONFIG"}
    ours = {"GIT_CEILING_DIRECTORIES": os.sep, "LC_ALL": "C.UTF-8", "LANGUAGE": ""}
    return {**{name: value for name, value in variables.items() if name not in hidden}, **ours}


def _as_file(settings: list[tuple[str, str | None]]) -> str:
    lines = []
    for key, value in settings:
        section, _, rest = key.partition(".")
        middle, _, name = rest.rpartition(".")
        quoted = middle.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'[{section} "{quoted}"]' if middle else f"[{section}]")
        lines.append(f"\t{name}" if value is None else f'\t{name} = "{_escaped(value)}"')
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
