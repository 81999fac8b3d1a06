"""Several triggers: the same events for all, wrong clocks, an expired lease; and a batch sent again as it runs."""

import json
import os
import signal
from contextlib import contextmanager
from dataclasses import replace

import boto3
import pytest

from coda.storage.objects import store_for
from tests.faults.deaths import Deaths, deaths_of
from tests.faults.standing import PACE, TEMPLATE, drawn, until
from tests.faults.verdict import assert_whole
from tests.faults.watch import Watch, watch

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

COPIES = 50
LEFT = ("temporary_folder", "multipart_upload")


def plan_of(platform, sources, work, **changes):
    return Watch(sources, platform.work(work), platform.params.model_dump_json(), PACE, len(sources), **changes)


@contextmanager
def watching(platform, *plans):
    """Triggers in processes of their own; all must end well."""
    processes = [platform.context.Process(target=watch, args=(plan, dict(os.environ))) for plan in plans]
    for process in processes:
        process.start()
    try:
        yield processes
        for process in processes:
            process.join(500)
        assert [process.exitcode for process in processes] == [0] * len(processes)
    finally:
        for process in processes:
            process.kill()


def notification(platform, source):
    store = store_for(platform.settings.landing, platform.settings)
    key = store.path(f"{source}/{TEMPLATE[1]}/manifest.json")
    about = {"bucket": {"name": store.bucket}, "object": {"key": key}}
    return json.dumps({"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": about}]})


def running_of(platform, source):
    return [state for entry in platform.entries(source) for state in entry.states if state.state == "running"]


def test_fifty_copies_of_every_event_in_any_order_for_two_triggers(platform, tally):
    sources = tuple(platform.new_source("copies") for _ in range(2))
    for source in sources:
        platform.deliver(source)
    bodies = [notification(platform, source) for source in sources for _ in range(COPIES)]
    drawn(platform, "copies").shuffle(bodies)
    url = platform.settings.queue_url
    queue = boto3.client("sqs", endpoint_url=url.rsplit("/", 2)[0])
    for start in range(0, len(bodies), 10):
        batch = [{"Id": str(place), "MessageBody": body} for place, body in enumerate(bodies[start : start + 10])]
        queue.send_message_batch(QueueUrl=url, Entries=batch)
    plan = plan_of(platform, sources, "copies", queue=True)
    with watching(platform, plan, plan):
        pass
    outcome = assert_whole(platform, tally, *sources, found=LEFT)
    tally.add("SQS: copies of an event, shuffled, read by two triggers at once", len(bodies), outcome)


def test_two_triggers_on_two_machines(platform, tally):
    sources = tuple(platform.new_source("two") for _ in range(2))
    for source in sources:
        platform.deliver(source)
    with watching(platform, plan_of(platform, sources, "two-a"), plan_of(platform, sources, "two-b")):
        pass
    tally.add(
        "two triggers at once, on two machines", len(sources), assert_whole(platform, tally, *sources, found=LEFT)
    )


def test_clocks_that_are_minutes_apart(platform, tally):
    source = platform.new_source("clocks")
    platform.deliver(source)
    pace = replace(PACE, lease_s=60.0)
    plans = [replace(plan_of(platform, (source,), f"clock{skew}"), skew_s=skew, pace=pace) for skew in (-420.0, 420.0)]
    with watching(platform, *plans):
        pass
    tally.add("clocks 7 minutes behind and 7 minutes ahead", 2, assert_whole(platform, tally, source, found=LEFT))


def test_a_lease_that_expires_while_the_run_goes_on(platform, tally):
    source = platform.new_source("lease")
    platform.deliver(source)
    with watching(platform, plan_of(platform, (source,), "lease-a")) as (slow,):
        until(lambda: running_of(platform, source), "the run")
        # the machine is so busy that its trigger gives no sign of life; its run goes on
        os.kill(slow.pid, signal.SIGSTOP)
        try:
            with watching(platform, plan_of(platform, (source,), "lease-b")):
                until(lambda: len(running_of(platform, source)) > 1, "the run of the other machine")
        finally:
            os.kill(slow.pid, signal.SIGCONT)
    tally.add("lease expired, the same run on two machines", 1, assert_whole(platform, tally, source, found=LEFT))


def test_a_batch_sent_again_while_it_runs(platform, tally):
    source, work = platform.new_source("again"), platform.work("again")
    platform.deliver(source)
    # the run is killed after its release, so that it must go on although its manifest was replaced meanwhile
    trigger = platform.trigger(platform.submitter(work, Deaths(platform.seed, steps=("predict",), most=1)))
    until(lambda: platform.settled(trigger, (source,), 1) or running_of(platform, source), "the run")
    platform.deliver(source)
    trigger.look()
    assert len(platform.entries(source)) == 1
    # a run whose manifest is replaced before it was read is rightly refused, so this waits until it has released
    until(lambda: any(work.glob("*/finished-steps/release")), "the release of the first version")
    platform.deliver(source, created_at="2026-02-01T00:00:00Z")
    platform.settle(trigger, source, versions=2)
    assert [entry.last.state for entry in platform.entries(source)] == ["released", "released"]
    outcome = assert_whole(platform, tally, source, versions=2, found=LEFT)
    assert deaths_of(work) == {"predict": 2}
    tally.add("batch sent again while it runs: unchanged, and changed", 2, outcome)
