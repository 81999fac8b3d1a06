"""A registry works alike whatever a person told git, whoever they are, and whatever its server calls its branch."""

import os
import subprocess
from pathlib import Path

import pytest

from coda.errors import ConfigError
from coda.storage.clone import cloned
from coda.storage.data_registry import commit_batch, create_registry, list_batches
from coda.storage.git_environment import chosen_environment
from coda.storage.programs import git

HABITS = """\
[clone]
    defaultRemoteName = upstream
[core]
    excludesFile = {home}/ignored
    attributesFile = {home}/attributes
    autocrlf = input
    safecrlf = true
    hooksPath = {home}/hooks
    quotePath = true
[commit]
    gpgsign = true
[user]
    useConfigOnly = true
[init]
    defaultBranch = trunk
    templateDir = {home}/template
[push]
    default = nothing
[status]
    showUntrackedFiles = no
[log]
    showSignature = true
[color]
    ui = always
"""


@pytest.fixture
def habits(tmp_path, monkeypatch) -> Path:
    """The home of a person with settings that would each break a registry."""
    home = tmp_path / "home"
    for hooks in (home / "hooks", home / "template" / "hooks"):
        hooks.mkdir(parents=True)
        for name in ("pre-commit", "pre-push", "post-checkout", "commit-msg"):
            (hooks / name).write_text("#!/bin/sh\nexit 1\n")
            (hooks / name).chmod(0o755)
    (home / "ignored").write_text("data/\n*.dvc\n.dvc\n")
    (home / "attributes").write_text("* text eol=crlf\n")
    (home / ".gitconfig").write_text(HABITS.format(home=home))
    (home / ".config" / "git").mkdir(parents=True)
    (home / ".config" / "git" / "ignore").write_text("data/\n*.dvc\n")
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(home / "template"))
    monkeypatch.setenv("GIT_WORK_TREE", "/nowhere")
    return home


def batch(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "index.parquet").write_text(text)
    return folder


def settings_for(url: str, moto_server, tmp_path):
    return moto_server.settings(tmp_path).model_copy(update={"data_registry": url})


def test_nothing_a_person_told_git_changes_what_a_registry_holds(habits, moto_server, tmp_path):
    settings = settings_for(str(tmp_path / "registry.git"), moto_server, tmp_path)
    create_registry(Path(settings.data_registry), settings.data_remote)
    first = commit_batch(batch(tmp_path / "one", "1"), "lab_b", "b1", settings=settings, run_id="r1")
    assert list_batches("lab_b", settings=settings) == [first]


@pytest.mark.parametrize("server", ["empty", "a file on its own branch", "both branches"])
def test_writers_and_readers_use_one_branch_whatever_the_servers_head_names(server, moto_server, tmp_path):
    bare = tmp_path / "server.git"
    bare.mkdir()
    git(bare, "init", "--quiet", "--bare", "--initial-branch=master")
    settings = settings_for(f"file://{bare}", moto_server, tmp_path)
    if server != "empty":
        _commit_readme(tmp_path / "work", bare, "master")
    if server == "both branches":
        _commit_readme(tmp_path / "other", bare, "main")
    revision = commit_batch(batch(tmp_path / "b1", "1"), "lab_b", "b1", settings=settings, run_id="r")
    assert list_batches("lab_b", settings=settings) == [revision]
    with cloned(settings.data_registry, settings.data_remote, None) as clone:
        assert clone.branch == {"empty": "main", "a file on its own branch": "master", "both branches": "main"}[server]


def _commit_readme(work: Path, bare: Path, branch: str) -> None:
    work.mkdir()
    git(work, "init", "--quiet", f"--initial-branch={branch}")
    (work / "README").write_text(branch)
    git(work, "add", "README")
    git(work, "commit", "--quiet", "-m", "Begin")
    git(work, "push", "--quiet", str(bare), branch)


@pytest.mark.parametrize("name", ["registry.git", "./a:b/registry.git", "a:b/registry.git", "my lab/r %2F'#é.git"])
def test_a_registry_is_where_this_process_sees_it(name, moto_server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = settings_for(name, moto_server, tmp_path)
    create_registry(Path(name), settings.data_remote)
    assert list_batches("lab_b", settings=settings) == []


@pytest.mark.parametrize("source", ["../..", "--all", "lab b", "", "a/b", ":(top)"])
def test_a_source_that_can_be_none_is_asked_of_nobody(source, moto_server, tmp_path):
    with pytest.raises(ConfigError, match="no such source"):
        list_batches(source, settings=settings_for("/nowhere", moto_server, tmp_path))


def test_how_to_reach_a_server_is_the_users_own(habits, tmp_path, monkeypatch):
    trusted = tmp_path / "included"
    trusted.write_text(
        '[safe]\n\tdirectory = /srv/it\'s "here" \\\\ there\n[http "https://git.x/"]\n\tsslCAInfo = /ca\n'
    )
    with (habits / ".gitconfig").open("a") as file:
        file.write(
            f'[include]\n\tpath = {trusted}\n[credential]\n\thelper = store\n[url "https://m/"]\n\tinsteadOf = x:\n'
        )
        file.write('[core]\n\tsshCommand = ssh -i "my key"\n[http]\n\tproxy\n')
    monkeypatch.setenv("GIT_SSH_COMMAND", "ssh -v")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)  # of the machine that runs the test
    with chosen_environment(tmp_path) as environment:
        listed = subprocess.run(
            ["git", "config", "--list", "--null"], cwd="/", env=environment, capture_output=True, text=True, check=True
        ).stdout
        file = Path(environment["GIT_CONFIG_GLOBAL"])
        assert file.stat().st_mode & 0o077 == 0, "an address may hold a password"
    assert not file.exists()
    assert sorted(listed.strip("\0").split("\0")) == sorted(
        ["safe.directory\n/srv/it's here \\ there", "http.https://git.x/.sslcainfo\n/ca", "credential.helper\nstore",
         "url.https://m/.insteadof\nx:", "core.sshcommand\nssh -i my key", "http.proxy"]
    )  # fmt: skip
    assert environment["GIT_SSH_COMMAND"] == "ssh -v"
    assert environment["HOME"] == str(habits), "git's own store of passwords lies there"
    assert not {"GIT_WORK_TREE", "GIT_TEMPLATE_DIR"} & environment.keys()


def test_settings_of_git_that_cannot_be_read_are_named(habits, tmp_path):
    (habits / ".gitconfig").write_text("[clone\n")
    with pytest.raises(ConfigError, match=r"\.gitconfig"):
        git(tmp_path, "--version")


def test_a_repository_of_another_user_comes_with_gits_own_remedy(tmp_path, monkeypatch, moto_server):
    settings = settings_for(str(tmp_path / "registry.git"), moto_server, tmp_path)
    create_registry(Path(settings.data_registry), settings.data_remote)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setattr("coda.storage.git_environment._OF_ACCESS", __import__("re").compile("GIT_TEST"))
    with pytest.raises(ConfigError, match=r"Run `git config --global --add safe\.directory .*registry\.git"):
        list_batches("lab_b", settings=settings)
    (tmp_path / ".gitconfig").write_text("[safe]\n\tdirectory = *\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert list_batches("lab_b", settings=settings) == []


def test_a_user_number_without_a_name_is_no_hindrance(tmp_path, monkeypatch, moto_server):
    import pwd

    def unknown(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("USER", "LOGNAME", "LNAME", "USERNAME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    with chosen_environment(tmp_path) as environment:
        assert environment["USER"] == environment["LOGNAME"] == f"uid-{os.getuid()}"
        assert environment["HOME"] == str(tmp_path)
