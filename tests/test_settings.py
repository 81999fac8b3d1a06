"""Settings come from the environment, complete or with everything that is missing."""

import pytest

from coda.errors import ConfigError
from coda.local.offline import offline_settings
from coda.settings import VARIABLES, Settings, read_settings
from coda.storage.objects import ObjectStore


def test_a_complete_environment_round_trips(tmp_path):
    settings = offline_settings(tmp_path)
    assert read_settings(settings.environment) == settings


def test_everything_that_is_missing_is_named():
    with pytest.raises(ConfigError) as caught:
        read_settings({"CODA_LANDING": "http://wrong"})
    named = {problem.where for problem in caught.value.problems}
    assert {"CODA_LANDING", "CODA_PLATFORM", "MLFLOW_TRACKING_URI", "CODA_DATA_REGISTRY"} <= named


def test_every_setting_has_a_variable_and_a_line_in_the_docs(root):
    assert set(VARIABLES) == set(Settings.model_fields)
    text = (root / "docs" / "settings.md").read_text()
    assert not [name for name in VARIABLES.values() if f"`{name}`" not in text]


@pytest.mark.parametrize("url", ["queue", "://", "http://ho st/q", "https://host:99999/q", "arn:aws:sqs:eu:1:q"])
def test_a_queue_that_has_no_address_is_named(url, tmp_path):
    with pytest.raises(ConfigError, match="CODA_QUEUE_URL"):
        read_settings({**offline_settings(tmp_path).environment, "CODA_QUEUE_URL": url})


def test_a_bucket_that_can_have_no_such_name_is_no_matter_of_keys(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "embedded")
    with pytest.raises(ConfigError, match="CODA_PLATFORM"):
        ObjectStore("s3://a b", "http://127.0.0.1:9", attempts=1, timeout_s=5).get("k")
