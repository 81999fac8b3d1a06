"""kill -9: at every write of steps and trigger, of whole machines, and in the processes of a real pipeline."""

import os
import signal
import time
from contextlib import suppress

import pytest

from coda.runners.submit import LocalSubmitter
from tests.faults.deaths import Deaths, deaths_of
from tests.faults.processes import ChainSubmitter
from tests.faults.standing import PACE, drawn, forget, until
from tests.faults.verdict import assert_whole
from tests.faults.watch import Watch, watch

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]

LEFT = ("temporary_folder", "multipart_upload")
"""What a killed process may leave, for the doctor to remove."""

INSIDE = {"Reading the plates": 2.0, "Adapting the extractor": 4.0, "Releasing": 3.0}
"""Step of a real pipeline process -> seconds within which it is killed."""


def test_every_write_of_every_step(platform, tally):
    source, work = platform.new_source("kill-steps"), platform.work("kill-steps")
    platform.deliver(source)
    trigger = platform.trigger(platform.submitter(work, Deaths(platform.seed, share=0.04)))
    platform.settle(trigger, source, patience_s=900)
    died = deaths_of(work)
    outcome = assert_whole(platform, tally, source, found=LEFT)
    expected = {
        "ingest_plates",
        "ingest",
        "archive",
        "validate",
        "version",
        "adapt",
        "gate",
        "register_adaptation",
        "release",
    }
    assert expected | {"predict", "report", "finish"} <= set(died)
    for step, deaths in died.items():
        tally.add(f"kill -9 before every write of {step}", deaths, outcome)


class Forgetful(ChainSubmitter):
    """Every run starts on another machine: nothing of its folder is there any more."""

    def start(self, task):
        for name in ("outputs", "finished-steps", "tmp"):
            forget(task.work / task.run_id / name)
        return super().start(task)


def test_lost_machines(platform, tally):
    source, work = platform.new_source("lost-machine"), platform.work("lost-machine")
    platform.deliver(source)
    steps = ("register_adaptation", "release", "predict", "finish")
    submitter = Forgetful(platform.settings, work, platform.context, {}, Deaths(platform.seed, steps=steps, most=1))
    platform.settle(platform.trigger(submitter), source)
    outcome = assert_whole(platform, tally, source, found=LEFT)
    tally.add("machine lost in a step, run again from its beginning elsewhere", sum(deaths_of(work).values()), outcome)


def test_trigger_between_every_two_of_its_writes(platform, tally):
    source, work = platform.new_source("kill-trigger"), platform.work("kill-trigger")
    platform.deliver(source)
    plan = Watch((source,), work, platform.params.model_dump_json(), PACE, deaths=Deaths(platform.seed, growing=False))
    lives = 0
    while not (entries := platform.entries(source)) or not entries[0].last.final:
        process = platform.context.Process(target=watch, args=(plan, dict(os.environ)))
        process.start()
        process.join(300)
        lives += process.exitcode == -signal.SIGKILL
        assert process.exitcode in (0, -signal.SIGKILL)
    assert lives >= 4
    outcome = assert_whole(platform, tally, source, found=LEFT)
    tally.add("kill -9 of the trigger between every two of its writes", lives, outcome)


def test_real_pipeline_processes(platform, tally):
    source, work = platform.new_source("kill-kfp"), platform.work("kill-kfp")
    platform.deliver(source)
    submitter = LocalSubmitter(platform.settings, work)
    trigger = platform.trigger(submitter, lease_s=5.0)
    random, waiting, kills = drawn(platform, "kfp"), dict(INSIDE), 0
    read = 0

    def ended():
        nonlocal read, kills
        trigger.look()
        trigger.advance()
        for log in work.glob("*/trigger.txt"):
            text = log.read_text(encoding="utf-8", errors="replace")
            new, read = text[read:], len(text)
            for words in [words for words in waiting if f"{words} ..." in new]:
                time.sleep(random.uniform(0, waiting.pop(words)))
                for process in list(submitter._processes.values()):
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                        kills += 1
                    process.wait()
        return (entries := platform.entries(source)) and entries[0].last.final

    until(ended, "the end of the pipeline", 900)
    assert kills >= len(INSIDE) - 1
    outcome = assert_whole(platform, tally, source, found=LEFT)
    tally.add("kill -9 inside steps of real pipeline processes (KFP)", kills, outcome)
