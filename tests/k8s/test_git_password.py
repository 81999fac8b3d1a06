"""The password of the data registry's Git server comes from a mounted secret, by the program that the image names."""

import os
import subprocess

import pytest

from coda.storage.git_environment import chosen_environment


@pytest.fixture
def asked(root, tmp_path, monkeypatch):
    """What git, run as the steps run it, has for a server that asks for user and password."""

    def fill(folder):
        monkeypatch.setenv("GIT_ASKPASS", str(root / "docker" / "git-askpass"))
        monkeypatch.setenv("CODA_GIT_CREDENTIALS", str(folder))
        monkeypatch.setenv("HOME", str(tmp_path))
        with chosen_environment(tmp_path) as environment:
            return subprocess.run(
                ["git", "-c", "credential.helper=", "credential", "fill"], env=environment, cwd=tmp_path,
                input="protocol=https\nhost=git.example.org\n\n", capture_output=True, text=True,
                check=False, timeout=60,
            )  # fmt: skip

    return fill


def test_user_and_password_are_the_files_of_the_secret(asked, tmp_path):
    secret = tmp_path / "a secret"
    secret.mkdir()
    (secret / "username").write_text("coda")
    (secret / "password").write_text("pass word\n")  # as a file's last line break would come
    done = asked(secret)
    assert done.returncode == 0, done.stderr
    assert {"username=coda", "password=pass word"} <= set(done.stdout.splitlines())


def test_without_a_secret_git_is_refused_and_does_not_wait(asked, tmp_path):
    done = asked(tmp_path / "nothing")
    assert done.returncode != 0
    assert "could not read Username" in done.stderr


def test_the_image_has_the_program_it_names(root):
    text, ignored = (root / "docker" / "Dockerfile").read_text(), (root / ".dockerignore").read_text().split()
    (line,) = [line.strip() for line in text.splitlines() if line.strip().startswith("GIT_ASKPASS=")]
    named = line.split("=", 1)[1].split()[0]
    assert f"COPY docker/git-askpass {named}" in text
    assert "!docker/git-askpass" in ignored
    assert os.access(root / "docker" / "git-askpass", os.X_OK)
