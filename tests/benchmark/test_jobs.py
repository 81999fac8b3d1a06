"""Jobs: kept one by one, gone on from, and failing alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import job_work
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coda.benchmark.jobs import Job, attempt_jobs, raise_for_failures, run_jobs
from coda.errors import CodaError, ConfigError

HERE = Path(__file__).parent


def make(count, **task):
    return [Job(f"job {number}", {"number": number}, {"number": number, **task}) for number in range(count)]


def test_results_come_in_order_and_are_kept_whole(tmp_path):
    jobs = [Job(f"n{k}", {"k": k}, k) for k in range(5)]
    assert run_jobs(jobs, job_work.double, tmp_path) == [{"value": 2 * k} for k in range(5)]
    names = sorted(path.name for path in (tmp_path / "jobs").iterdir())
    assert names == sorted(f"{job.digest}.json" for job in jobs)
    assert json.loads(jobs[3].file(tmp_path).read_text())["key"] == {"k": 3}


def test_finished_jobs_are_not_done_again_and_torn_ones_are(tmp_path):
    jobs, log = make(3, log=str(tmp_path / "log")), tmp_path / "log"
    run_jobs(jobs, job_work.counted, tmp_path)
    jobs[1].file(tmp_path).write_text(jobs[1].file(tmp_path).read_text()[:40])
    jobs[2].file(tmp_path).unlink()
    events = []
    run_jobs(jobs, job_work.counted, tmp_path, report=events.append)
    assert log.read_text().split("\n")[3:-1] == ["job 1", "job 2"]
    assert [(event.state, event.done) for event in events] == [
        ("kept", 1), ("started", 1), ("finished", 2), ("started", 2), ("finished", 3),
    ]  # fmt: skip


@pytest.mark.parametrize("processes", [1, 2])
def test_a_failing_job_takes_only_those_that_need_it_along(tmp_path, processes):
    good, bad, other = make(3, log=str(tmp_path / "log"))
    bad.task["fail"] = True
    needs = Job("needs bad", {"n": 4}, {"log": str(tmp_path / "log")}, after=(bad,))
    outcomes = attempt_jobs([needs, good, bad, other], job_work.counted, tmp_path, processes=processes)
    assert [outcome.result is not None for outcome in outcomes] == [False, True, False, True]
    assert outcomes[0].cause == "it needs 'job 1', which failed"
    assert outcomes[2].cause == "ValueError: job 1 is broken"
    with pytest.raises(CodaError) as caught:
        raise_for_failures(outcomes)
    assert [problem.where for problem in caught.value.problems] == ["needs bad", "job 1"]
    bad.task["fail"] = False
    run_jobs([needs, good, bad, other], job_work.counted, tmp_path)
    done = (tmp_path / "log").read_text().splitlines()
    assert sorted(done) == ["job 0", "job 1", "job 1", "job 2", "needs bad"]


def test_a_process_that_dies_fails_its_own_job_and_another_takes_its_place(tmp_path):
    jobs = make(4, log=str(tmp_path / "log"))
    jobs[0].task["die"] = True
    outcomes = attempt_jobs(jobs, job_work.counted, tmp_path, processes=2)
    assert "killed for lack of memory" in outcomes[0].cause
    assert all(outcome.result for outcome in outcomes[1:])
    assert {outcome.result["pid"] for outcome in outcomes[1:]}.isdisjoint({os.getpid()})


def test_a_killed_benchmark_leaves_what_is_finished_and_no_process(tmp_path):
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import job_work\nfrom pathlib import Path\nfrom coda.benchmark.jobs import Job, run_jobs\n"
        "if __name__ == '__main__':\n"
        "    log = sys.argv[2] + '/log'\n"
        "    jobs = [Job(f'job {n}', {'number': n}, {'log': log, 'sleep': 60 * (n > 1)}) for n in range(4)]\n"
        "    run_jobs(jobs, job_work.counted, Path(sys.argv[2]), processes=2)\n"
    )
    script = tmp_path / "run.py"
    script.write_text(program)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    running = subprocess.Popen([sys.executable, script, HERE, tmp_path], env=environment)
    log = tmp_path / "log"
    deadline = time.monotonic() + 60
    while (not log.exists() or log.read_text().count("\n") < 4) and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert len(list((tmp_path / "jobs").glob("*.json"))) == 2
    children = Path("/proc")
    for _ in range(200):
        left = [p for p in children.glob("[0-9]*") if str(tmp_path).encode() in _command(p)]
        if not left:
            break
        time.sleep(0.02)
    assert not left


def _command(process):
    try:
        return (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
    except OSError:
        return b""


def test_two_benchmarks_do_not_work_in_one_folder(tmp_path):
    jobs = make(2, log=str(tmp_path / "log"))
    second = []

    def nested(job):
        try:
            run_jobs(make(3, log=str(tmp_path / "log")), job_work.counted, tmp_path)
        except ConfigError as error:
            second.append(str(error))
        return {}

    run_jobs(jobs, nested, tmp_path)
    assert len(second) == 2
    assert "another benchmark at work" in second[0]
    assert not (tmp_path / "log").exists()
    run_jobs(make(3, log=str(tmp_path / "log")), job_work.counted, tmp_path)
    assert (tmp_path / "log").read_text() == "job 2\n"


def test_what_a_job_builds_upon_is_part_of_its_name(tmp_path):
    first, changed = Job("a", {"k": 1}), Job("a", {"k": 2})
    assert Job("b", {"k": 3}, after=(first,)).digest != Job("b", {"k": 3}, after=(changed,)).digest
    assert Job("b", {"k": 3}, task=1).digest == Job("other name", {"k": 3}, task=2).digest


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_jobs_are_done_after_those_they_need_whatever_the_order(links):
    from coda.benchmark.job_processes import in_this_process

    jobs = []
    for number, link in enumerate(links):
        jobs.append(Job(str(number), {"n": number}, 0, after=tuple(jobs[-link:]) if link else ()))
    done = []

    def work(job):
        assert all(other.name in done for other in job.after)
        done.append(job.name)
        return {}

    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        list(in_this_process(jobs[::-1], work, Path(folder), 1, {}, lambda job: None))
    assert sorted(done, key=int) == [job.name for job in jobs]
