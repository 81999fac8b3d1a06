"""A short-lived clone of the data registry: where batches are added, and where they are fetched."""

import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, Field, TypeAdapter

from coda.contracts.documents import document
from coda.errors import CodaError, ConfigError, Problem, ServiceRefusedError, TransientError
from coda.settings import without_secrets
from coda.storage.programs import dvc, git, git_files

BRANCH = "main"
OBJECTS = "files/md5/"
"""Where DVC keeps objects below its remote."""

WORKING = ".coda-data-"
"""Beginning of the name of a clone's folder; one that is left belongs to a process that was killed."""

PUSHES = 40
"""Tries to push against other writers before a run gives up and is repeated later."""

_LOST = re.compile(
    r"\[rejected\]|fetch first|non-fast-forward|lock(ing)?[ _]ref|lock[ _]failure|failed to (update|lock)|stale info"
    r"|incorrect old value|reference already exists",
    re.IGNORECASE,
)
"""What servers call a push that another one came before; a '[remote rejected]' with other words refuses it for good."""

# '?*' and not '*': DVC reads the file with dulwich, for which '*' matches nothing at all too, and would then leave out
# every folder of a source
_IGNORED = "# DVC keeps the batches themselves; Git keeps the .dvc files\n/data/?*/?*/\n"


@dataclass(frozen=True)
class Clone:
    """A working copy of the data registry below a temporary folder.

    Attributes:
        folder: The working copy.
        remote: DVC remote, ``s3://bucket/prefix``.
        endpoint: S3 endpoint URL; none for AWS itself.
        branch: Branch that holds the registry, for writers and readers alike.
    """

    folder: Path
    remote: str
    endpoint: str | None
    branch: str = BRANCH

    def configure(self) -> None:
        """Write the local DVC configuration: the address of the remote, no analytics, no secrets."""
        lines = ["[core]", "    remote = coda", "    analytics = false", "    check_update = false"]
        # a clone links to its own cache, so a large batch is not copied again; fetched objects are hashed
        lines += ["[cache]", '    type = "hardlink,copy"', "['remote \"coda\"']"]
        lines += [f"    url = {self.remote}", "    verify = true"]
        if self.endpoint is not None:
            lines.append(f"    endpointurl = {self.endpoint}")
        (self.folder / ".dvc" / "config.local").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def initialise(self) -> None:
        """Make the first commit of an empty registry: DVC's own files and the name of the remote."""
        dvc(self.folder, "init", "--quiet")
        shared = f"[core]\n    remote = coda\n    analytics = false\n['remote \"coda\"']\n    url = {self.remote}\n"
        (self.folder / ".dvc" / "config").write_text(shared, encoding="utf-8")
        (self.folder / ".gitignore").write_text(_IGNORED, encoding="utf-8")
        git(self.folder, "add", ".dvc", ".dvcignore", ".gitignore")
        git(self.folder, "commit", "--quiet", "-m", "Create the data registry")

    def pointer(self, path: str, revision: str = "HEAD") -> str | None:
        """Return the text of a batch's .dvc file at a revision, or none when it is not there."""
        try:
            return git(self.folder, "show", f"{revision}:{path}.dvc")
        except (ConfigError, TransientError):
            raise
        except CodaError:
            return None

    def pointers(self, wanted: Sequence[tuple[str, str]]) -> list[str | None]:
        """Return the texts of many .dvc files, each a path and a revision, as `pointer` does: with one git for all."""
        found = git_files(self.folder, [f"{revision}:{path}.dvc" for path, revision in wanted])
        return [None if content is None else content.decode(errors="replace") for content in found]

    def last_change(self, path: str) -> str:
        """Return the commit that last changed a batch."""
        return git(self.folder, "log", "-1", "--format=%H", "--", f"{path}.dvc").strip()

    def publish(self, pointers: Mapping[str, str], message: str) -> None:
        """Commit .dvc files and push them, whoever else pushes at the same time.

        The files are small and whole, so a lost race needs no merge: take what is there now, write ours again, push.

        Args:
            pointers: Path of a batch in the registry -> text of its .dvc file.
            message: Commit message.

        Raises:
            TransientError: Others kept winning, or the registry does not answer.
        """
        for attempt in range(1, PUSHES + 1):
            for path, text in pointers.items():
                file = self.folder / f"{path}.dvc"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
            git(self.folder, "add", "--", *(f"{path}.dvc" for path in pointers))
            if git(self.folder, "status", "--porcelain", "--untracked-files=no").strip():
                git(self.folder, "commit", "--quiet", "-m", message)
            if not self._ahead() or self._pushed():
                return
            time.sleep(min(2.0, 0.05 * attempt) * (0.5 + secrets.randbelow(1000) / 1000))
            git(self.folder, "fetch", "--quiet", "origin", self.branch)
            git(self.folder, "reset", "--quiet", "--hard", "FETCH_HEAD")
        raise TransientError(f"The data registry took no commit in {PUSHES} tries: too many writers at once.")

    def _ahead(self) -> bool:
        known = git(self.folder, "for-each-ref", "--format=%(objectname)", f"refs/remotes/origin/{self.branch}").strip()
        return git(self.folder, "rev-parse", "HEAD").strip() != known

    def _pushed(self) -> bool:
        try:
            git(self.folder, "push", "--quiet", "origin", f"HEAD:refs/heads/{self.branch}")
        except CodaError as error:
            if _LOST.search(str(error)):
                return False
            raise
        return True


@contextmanager
def cloned(url: str, remote: str, endpoint: str | None, near: Path | None = None) -> Iterator[Clone]:
    """Clone the data registry, initialising an empty one, and forget the clone afterwards.

    All commits are cloned: they hold nothing but .dvc files of some hundred bytes, and the history answers which
    commit brought a batch.

    Args:
        url: Git URL or path of the registry.
        remote: DVC remote.
        endpoint: S3 endpoint URL; none for AWS itself.
        near: Folder on the file system the data lies on, so that files can be linked and not copied.

    Raises:
        ConfigError: There is no such repository.
        TransientError: It does not answer.
    """
    root = Path(tempfile.mkdtemp(prefix=WORKING, dir=near))
    try:
        if "://" not in url and "@" not in url and not Path(url).exists():
            remedy = "Create it with `coda data init`, or correct CODA_DATA_REGISTRY."
            problem = Problem(url, "no such repository", "a Git repository", remedy)
            raise ConfigError("There is no data registry.", [problem])
        if "://" not in url and Path(url).exists():
            url = str(Path(url).resolve())  # git runs in another folder, and takes what is before a colon for a host
        branch = _branch(root, url)
        chosen = ["--branch", branch, "--single-branch"] if branch else []
        # said in the clone itself, for DVC reads the user's list of ignored files by ways of its own
        own = [f"--config=core.{name}={os.devnull}" for name in ("excludesFile", "attributesFile")]
        git(root, "clone", "--quiet", "--no-tags", "--template=", *own, *chosen, "--", url, "registry")
        clone = Clone(root / "registry", remote, endpoint, branch or BRANCH)
        if not (clone.folder / ".dvc").is_dir():
            git(clone.folder, "checkout", "--quiet", "-B", clone.branch)
            clone.initialise()
        clone.configure()
        yield clone
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _branch(folder: Path, url: str) -> str:
    """Return the branch of the server that holds the registry; nothing while the server has none.

    'main' if it is there, whatever the server's HEAD names: a server that calls its default branch otherwise takes our
    first push to 'main' and leaves its HEAD at a branch that never comes to be. Else the branch that HEAD names, where
    somebody set the registry up by hand.
    """
    heads, head = [], ""
    asking = ("ls-remote", "--symref", "--", url, "HEAD", "refs/heads/*")
    answer = git(folder, *asking)
    if not answer.strip():
        _require_git_server(folder, url, asking)
    for line in answer.splitlines():
        first, _, name = line.partition("\t")
        if name == "HEAD" and first.startswith("ref: "):
            head = first.removeprefix("ref: refs/heads/")
        elif name.startswith("refs/heads/"):
            heads.append(name.removeprefix("refs/heads/"))
    return next((name for name in (BRANCH, head) if name in heads), "")


def _require_git_server(folder: Path, url: str, asking: Sequence[str]) -> None:
    """Ask again what answered with no branch at all: git takes any page of HTML for an empty repository.

    Raises:
        ServiceRefusedError: The answer came by HTTP and has not the content type that Git servers give.
    """
    trace = folder / "answer.txt"  # the folder is readable by its owner alone
    git(folder, *asking, variables={"GIT_TRACE_CURL": str(trace), "GIT_TRACE_CURL_NO_DATA": "1"})
    text = trace.read_text(encoding="utf-8", errors="replace") if trace.exists() else ""
    kinds = re.findall(r"Recv header: content-type: *(\S+)", text, re.IGNORECASE)
    if kinds and not any(kind.startswith("application/x-git-") for kind in kinds):
        remedy = "Let CODA_DATA_REGISTRY name the repository itself, past any sign-in page; check git's credentials."
        problem = Problem(without_secrets(url), f"an answer of type {kinds[-1]}", "a Git server's answer", remedy)
        raise ServiceRefusedError("Something else answers in place of the data registry.", [problem])


def object_key(digest: str) -> str:
    """Return the key, below the data remote, of what DVC stores under a digest ('<md5>', or '<md5>.dir' of a list)."""
    return f"{OBJECTS}{digest[:2]}/{digest[2:]}"


class Entry(BaseModel):
    """One file of a batch in DVC's list: its MD5, and its path in the batch."""

    md5: str = Field(pattern="^[0-9a-f]{32}$")
    relpath: str


_ENTRIES = TypeAdapter(list[Entry])


def entries_in(content: bytes, where: str) -> list[Entry]:
    """Return the files of a batch from DVC's list of them.

    Raises:
        IntegrityError: It is no such list.
    """
    remedy = "Restore the object from a backup; find out who changed it."
    return document(content, _ENTRIES, where=where, expected="DVC's list of a batch's files", remedy=remedy)


def digest_in(pointer: str, path: str) -> str:
    """Return the digest ('<md5>.dir') that a .dvc file names.

    Raises:
        CodaError: The file is no .dvc file of one folder.
    """
    try:
        digest = yaml.safe_load(pointer)["outs"][0]["md5"]
    except (yaml.YAMLError, ValueError, RecursionError, LookupError, TypeError) as error:
        remedy = "Restore the file from the registry's Git history."
        problem = Problem(f"{path}.dvc", repr(pointer[:100]), "a .dvc file with one output", remedy)
        raise CodaError("The data registry holds a file that DVC did not write.", [problem]) from error
    return str(digest)
