"""git and DVC as other processes, with their failures as errors of this library.

Both are run through their command lines, which are their stable interface. Neither sees the user's hooks, ignored files
or ways of working (`coda.storage.git_environment`), asks for a password, writes analytics or looks for updates.
"""

import io
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from coda.errors import CodaError, ConfigError, Problem, TransientError
from coda.settings import without_secrets
from coda.storage.git_environment import chosen_environment
from coda.warm import asking

_AWAY = re.compile(
    r"could not connect|connect timeout|read timeout|timed out|connection (was )?(reset|refused|closed)|unreachable"
    r"|could not resolve host|temporary failure in name resolution|slowdown|service ?unavailable|internal ?error"
    r"|bad gateway|http 5\d\d|error: (429|5\d\d)|early eof|unexpected disconnect|hung up|broken pipe|too many requests"
    # as curl says it, for git
    r"|failed to connect|couldn't connect|empty reply|network is|no route to host"
    r"|rpc failed; curl (18|28|35|52|55|56|92)"
    r"|(gnutls|ssl)_?.{0,6}(recv|read|syscall)"
    # an upload whose last answer was lost, or which the store's clean-up took; what has arrived is not sent again
    r"|nosuchupload",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"permission denied|access ?denied|forbidden|authentication failed|could not read username|credential"
    r"|does not appear to be a git repository|repository .* (not found|does not exist)|no such remote|dubious ownership"
    r"|error: 40[137]|config profile|(expired|invalid) ?token|nosuchbucket|invalidaccesskeyid|signaturedoesnotmatch"
    r"|bucket .* does not exist",
    re.IGNORECASE,
)
_OF_SERVER = frozenset({"ls-remote", "clone", "fetch", "push"})
"""What git asks of a server: a refusal that is no outage is for whoever set the address, the identity or the server."""

_GIT = ("git", "-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0")

_OBJECT = re.compile(rb"[0-9a-f]{40,64} (blob|tree|commit|tag) (\d+)")
"""What `git cat-file` says before an object: its name, its kind and its bytes."""

_HINTS = re.compile(r"hint:|Please make sure you have the correct access rights|and the repository exists\.")
_FULL = re.compile(r"no space left|disk quota exceeded|disk is full|read-only file system", re.IGNORECASE)

Meaning: TypeAlias = tuple[type[CodaError], str, str]
"""Class of the error, what was expected, and what to do."""

_MEANINGS: tuple[tuple[re.Pattern[str], Meaning], ...] = (
    (_FULL, (ConfigError, "free disk space", "Free some space and repeat the step.")),
    (_REFUSED, (
        ConfigError, "a data registry this process may use",
        "Check CODA_DATA_REGISTRY, CODA_DATA_REMOTE and the credentials (docs/settings.md).",
    )),
    (_AWAY, (
        TransientError, "a data registry that answers", "Check that it is up; the step can be repeated safely.",
    )),
)  # fmt: skip
"""Words of git and DVC -> what they mean; the first that are found."""

_OF_A_SERVER: Meaning = (
    ConfigError, "a Git server that takes this",
    "Let CODA_DATA_REGISTRY name a repository that this identity may read and write; git's words say more.",
)  # fmt: skip
_UNKNOWN: Meaning = (CodaError, "success", "Read the message; docs/registry.md may help.")


def git(folder: Path, *arguments: str, timeout_s: float = 300, variables: Mapping[str, str] | None = None) -> str:
    """Run git in a folder and return what it prints.

    Raises:
        TransientError: The remote does not answer, git took longer than `timeout_s`, or it was killed.
        ConfigError: The repository is not there, or its server refuses, or the disk is full.
        CodaError: Anything else that git refuses, with its own last lines.
    """
    output = _run([*_GIT, *arguments], folder, variables or {}, timeout_s)
    return output.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")


def git_files(folder: Path, names: Sequence[str]) -> list[bytes | None]:
    """Return the contents of files in a repository's history, one process of git for all of them.

    Returns:
        In the order given; none where the commit, or the file in it, is not there.

    Raises:
        CodaError: As `git` does; a name that is not there is no error.
    """
    asked = [name for name in names if "\n" not in name]  # git could not tell where such a name ends: it has no file
    text = "".join(f"{name}\n" for name in asked).encode()
    output = io.BytesIO(_run([*_GIT, "cat-file", "--batch"], folder, {}, timeout_s=300, given=text))
    found: dict[str, bytes] = {}
    for name in asked:
        answer = _OBJECT.fullmatch(output.readline().removesuffix(b"\n"))
        if answer is not None:  # else: the name again, and that it is missing or ambiguous
            content = output.read(int(answer[2]))
            output.read(1)
            if answer[1] == b"blob":
                found[name] = content
    return [found.get(name) for name in names]


def dvc(folder: Path, *arguments: str, timeout_s: float = 4 * 3600) -> str:
    """Run DVC in a clone of the data registry and return what it prints; see `git` for the errors."""
    variables = {
        "DVC_NO_ANALYTICS": "1",
        # the default is a folder in /var/tmp that all users of a machine share
        "DVC_SITE_CACHE_DIR": str(folder.parent / "dvc-site"),
        "DVC_GLOBAL_CONFIG_DIR": str(folder.parent / "dvc-global"),
        "DVC_SYSTEM_CONFIG_DIR": str(folder.parent / "dvc-system"),
    }
    return _run(["dvc", *arguments], folder, variables, timeout_s).decode(errors="replace")


def _run(
    command: Sequence[str], folder: Path, variables: Mapping[str, str], timeout_s: float, given: bytes = b""
) -> bytes:
    name = "dvc" if "dvc" in command else "git"
    try:
        with chosen_environment(home=folder.parent) as environment:
            if name == "dvc":
                done = asking.run(command, cwd=folder, env={**environment, **variables}, timeout_s=timeout_s)
                code, out, said = done.returncode, done.stdout.encode(), done.stderr
            else:
                ended = subprocess.run(
                    command, cwd=folder, env={**environment, **variables}, input=given, capture_output=True,
                    timeout=timeout_s, check=False,
                )  # fmt: skip
                code, out, said = ended.returncode, ended.stdout, ended.stderr.decode(errors="replace")
    except FileNotFoundError as error:
        problem = Problem(name, "no such program", f"{name} on the PATH", f"Install {name}.")
        raise ConfigError(f"{name} cannot be run.", [problem]) from error
    except subprocess.TimeoutExpired as error:
        raise TransientError(f"{name} {_verb(command)} took longer than {timeout_s:.0f} s and was stopped.") from error
    if code != 0:
        raise _failure(name, _verb(command), code, said + "\n" + out.decode(errors="replace"))
    return out


def _failure(name: str, verb: str, code: int, output: str) -> CodaError:
    lines = [line.strip() for line in output.splitlines() if line.strip() and "Having any troubles" not in line]
    asked = name == "git" and verb in _OF_SERVER
    if asked:  # ssh and helpers have words of their own before those of git
        telling = [line for line in lines if not _HINTS.match(line)][-6:]
    else:
        telling = ([line for line in lines if re.match(r"(error|fatal|!)", line, re.IGNORECASE)] or lines)[-4:]
    words = without_secrets(" ".join(telling))[:500]
    if code < 0:
        # by the kernel for want of memory, say: it says nothing of the data, and the same again may well succeed
        remedy = "Nothing is lost; the step can be repeated. Give it more memory if this happens often."
        problem = Problem(name, words or "no words of its own", "an end of its own", remedy)
        return TransientError(f"{name} {verb} was killed by signal {-code}.", [problem])
    message = f"{name} {verb} failed."
    found = words or f"exit code {code}"
    if trusted := re.search(r"git config --global --add safe\.directory .*", output):
        remedy = f"Run `{trusted[0].strip()}` as the user this runs as, or give that user the repository."
        return ConfigError(message, [Problem(name, found, "a repository of this user, or one it trusts", remedy)])
    otherwise = _OF_A_SERVER if asked else _UNKNOWN
    kind, expected, remedy = next((meaning for pattern, meaning in _MEANINGS if pattern.search(output)), otherwise)
    return kind(message, [Problem(name, found, expected, remedy)])


def _verb(command: Sequence[str]) -> str:
    start = command.index("dvc") + 1 if "dvc" in command else 1
    words = [word for word in command[start:] if not word.startswith("-") and "=" not in word]
    return words[0] if words else ""
