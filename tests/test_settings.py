"""Settings come from the environment, complete or with everything that is missing."""

import pytest

from coda.errors import ConfigError
from coda.local.offline import offline_settings
from coda.settings import VARIABLES, Settings, read_settings


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
