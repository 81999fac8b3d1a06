"""A run never takes the place of another version of its batch."""

import pytest
from conftest_trigger import manifest_of

from coda.errors import ContractError
from coda.trigger.batch_versions import in_words, require_version


def test_replaced_manifest_is_refused_by_the_run_of_the_claimed_one(tmp_path):
    claimed, delivered = manifest_of("lab", "b1"), manifest_of("lab", "b1", " serviced")
    delivered.write(tmp_path / "lab" / "b1" / "manifest.json")
    require_version(tmp_path, "")
    require_version(tmp_path, delivered.digest())
    with pytest.raises(ContractError, match="replaced after this run was started") as caught:
        require_version(tmp_path, claimed.digest())
    assert claimed.digest()[:16] in str(caught.value)


def test_reasons_are_few_and_counted():
    assert in_words(map(str, range(4))) == ("0", "1", "2", "3")
    assert in_words(map(str, range(9))) == ("0", "1", "2", "3", "4", "... and 4 more")
