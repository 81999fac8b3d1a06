"""An object store that answers with errors, late, in pieces, or not at all: to the trigger, to the steps and to DVC."""

import pytest

from tests.faults.platform import drawn
from tests.faults.proxy import KINDS, FaultProxy
from tests.faults.verdict import assert_whole

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

SHARE = 0.04
"""Share of the requests that go wrong: about a dozen of a batch's."""


@pytest.mark.parametrize("kind", KINDS)
def test_requests_that_go_wrong(platform, tally, kind):
    source = platform.new_source("s3")
    platform.deliver(source)
    seed = drawn(platform, f"s3 {kind}").getrandbits(32)
    proxy = FaultProxy(platform.settings.s3_endpoint, seed, share=SHARE)
    through = platform.settings.model_copy(update={"s3_endpoint": proxy.endpoint})
    submitter = platform.submitter(platform.work(f"s3-{kind.replace(' ', '-')}"), settings=through)
    with proxy.serving(), proxy.spoiling(kind):
        platform.settle(platform.trigger(submitter, through), source)
    assert proxy.injected[kind] > 0
    outcome = assert_whole(platform, tally, source, found=("temporary_folder", "multipart_upload"))
    tally.add(f"S3: {kind}", proxy.injected[kind], outcome)
