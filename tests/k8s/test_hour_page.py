"""The shell lines of docs/kubernetes.md that need no cluster, as they stand there."""

import os
import re
import subprocess
import sys

import pytest
from servers import moto_server

from coda.contracts.manifest import BatchManifest
from coda.storage.objects import store_for

__all__ = ["moto_server"]


@pytest.fixture
def page(root):
    return (root / "docs" / "kubernetes.md").read_text()


def test_plates_are_simulated_and_uploaded_as_the_page_says(page, moto_server, tmp_path):
    settings = moto_server.settings(tmp_path)
    for uri in (settings.landing, settings.platform):
        store_for(uri, settings).ensure_bucket()
    simulate = re.findall(r"^coda (simulate batch .*)$", page, re.MULTILINE)
    assert len(simulate) == 2
    for line in simulate:
        smallest = ["--plates", "1", "--plate-wells", "48", "--field-px", "64", "--sites", "1"]
        command = [sys.executable, "-c", "from coda.cli import main; main()", *line.split(), *smallest]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (script,) = re.findall(r"^python - <<END\n(.*?)^END$", page, re.MULTILINE | re.DOTALL)
    subprocess.run(
        [sys.executable, "-"],
        input=script,
        text=True,
        cwd=tmp_path,
        check=True,
        env={**os.environ, **settings.environment},
    )
    landing = store_for(settings.landing, settings)
    named = re.findall(r"s3://coda-landing/(\S+/manifest\.json)", page)
    assert len(named) == 2
    for key in [*named, "lab_b/batch_01/manifest.json"]:
        manifest = BatchManifest.model_validate_json(landing.get(key))
        assert all(landing.exists(f"{key.rpartition('/')[0]}/{file.path}") for file in manifest.plates[0].files)
    (labels,) = re.findall(r"--labels s3://coda-platform/(\S+)", page)
    assert store_for(settings.platform, settings).get(labels).startswith(b"Metadata_Compound")


def test_every_secret_of_the_table_is_made_or_optional(page):
    made = set(re.findall(r"^ *secret ([\w$-]+) ", page, re.MULTILINE))
    table = re.findall(r"^\| secret `([\w<>-]+)`.*\| (\w+)[^|]*\|$", page, re.MULTILINE)
    for name, when in table:
        assert when == "optional" or name.replace("<class>", "$class") in made, name
    assert "coda-postgres" in made
