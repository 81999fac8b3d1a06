"""An object store that answers with errors, late, in pieces, or not at all: to the trigger, to the steps and to DVC."""

import pytest

from tests.faults.proxy import FaultProxy
from tests.faults.standing import drawn
from tests.faults.verdict import assert_whole

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

SHARE = 0.06
"""Share of the requests that go wrong: about two dozen of a batch's."""

TOGETHER = {
    "answered wrongly or late": ("500", "503", "slow"),
    "broken off": ("timeout", "dropped", "answer lost", "body cut"),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_requests_that_go_wrong(platform, tally, name):
    source = platform.new_source("s3")
    platform.deliver(source)
    proxy = FaultProxy(platform.settings.s3_endpoint, drawn(platform, name).getrandbits(32), share=SHARE)
    through = platform.settings.model_copy(update={"s3_endpoint": proxy.endpoint})
    submitter = platform.submitter(platform.work(source), settings=through)
    with proxy.serving(), proxy.spoiling(*TOGETHER[name]):
        platform.settle(platform.trigger(submitter, through), source)
    outcome = assert_whole(platform, tally, source, found=("temporary_folder", "multipart_upload"))
    assert set(proxy.injected) == set(TOGETHER[name])
    for kind, count in sorted(proxy.injected.items()):
        tally.add(f"S3: {kind}", count, outcome)
