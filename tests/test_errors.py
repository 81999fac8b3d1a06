"""Errors carry every problem, and the exit codes are the documented ones."""

import re

import pytest

from coda.errors import CodaError, ConfigError, ContractError, IntegrityError, Problem, TransientError, raise_if_any

PROBLEM = Problem("plate p1, well C04", "0 bytes", "a TIFF", "Send it again.")


@pytest.mark.parametrize("kind", [CodaError, ConfigError, ContractError, IntegrityError, TransientError])
def test_every_error_is_documented_with_its_exit_code(kind, root):
    table = (root / "docs" / "errors.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", table, re.MULTILINE)
    assert [
        code for code, text in rows if f"`{kind.__name__}`" in text or (kind is CodaError and "CodaError" in text)
    ] == [str(kind.exit_code)]


def test_the_text_names_value_place_expectation_and_remedy():
    text = str(ContractError("One file is bad.", [PROBLEM]))
    for part in ("One file is bad.", "plate p1, well C04", "0 bytes", "a TIFF", "Send it again."):
        assert part in text


def test_raise_if_any_raises_all_or_nothing():
    raise_if_any(ConfigError, "nothing", [])
    with pytest.raises(ConfigError) as caught:
        raise_if_any(ConfigError, "two", [PROBLEM, PROBLEM])
    assert len(caught.value.problems) == 2
