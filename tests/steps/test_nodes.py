"""Pretraining on several machines: a TrainJob made once, waited for through faults; its result or reason fetched."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import safetensors.numpy
from kubernetes_server import KubernetesServer
from servers import free_port

from coda.errors import CodaError, ConfigError, StoppedError, TransientError
from coda.local.offline import offline_settings
from coda.steps import nodes
from coda.steps.nodes import run_on_nodes
from coda.steps.pretrain import pretrain
from coda.storage.objects import ObjectStore

IMAGE = "registry.test/coda@sha256:" + "a" * 64


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    server = KubernetesServer()
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(nodes, "LOOK_S", 0.05)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def settings(moto_server, tmp_path):
    own = moto_server.settings(tmp_path)
    return own.model_copy(update={"checkpoints": f"{own.platform}/checkpoints", "image": IMAGE})


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "dataset" / "lab"
    path.mkdir(parents=True)
    (path / "index.parquet").write_bytes(b"rows")
    return tmp_path / "dataset"


def place_of(job, settings):
    return ObjectStore(job["spec"]["trainer"]["command"][-1], settings.s3_endpoint)


def succeeds(cluster, settings):
    """Have machines that succeed at once: a network, then numbers."""

    def train(job):
        store = place_of(job, settings)
        sent = {item.key for item in store.list("sent/")}
        assert sent == {"sent/request.json", "sent/dataset/lab/index.parquet"}
        store.put("out/extractor/weights", b"w")
        store.put("numbers.json", b'{"loss": 1.5}')
        cluster.end(job["metadata"]["name"], "Complete")

    return train


@pytest.fixture
def run(params, folder, settings, tmp_path):
    def go(*changes, run_id="r1"):
        return run_on_nodes(
            "pretrain", {"dataset": folder, "out": tmp_path / "out"}, params=params("compute.nodes=2", *changes),
            settings=settings, run_id=run_id, texts={},
        )  # fmt: skip

    return go


def container(**state):
    return [{"name": "node", "state": state, "lastState": {}}]


def pod(name, phase="Failed", statuses=(), **status):
    return {"metadata": {"name": name}, "status": {"phase": phase, "containerStatuses": list(statuses), **status}}


def died(name, code, reason="Error", at="2026-01-01T00:00:00Z"):
    return pod(name, statuses=container(terminated={"exitCode": code, "reason": reason, "finishedAt": at}))


def test_a_job_is_made_waited_for_fetched_and_deleted(cluster, run, settings, tmp_path):
    documents = []
    cluster.on_create = documents.append
    looks = []

    def look(job):
        looks.append(job)
        if len(looks) == 4:
            succeeds(cluster, settings)(job)

    cluster.on_look = look
    assert run("compute.processes=4") == {"loss": 1.5}
    assert (tmp_path / "out" / "extractor" / "weights").read_bytes() == b"w"
    assert not cluster.jobs
    (job,) = documents
    trainer = job["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"], trainer["image"]) == (2, 4, IMAGE)
    assert job["spec"]["runtimeRef"]["kind"] == "ClusterTrainingRuntime"
    # a password is named and never written
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in json.dumps(job)
    assert not list(place_of(job, settings).list()), "nothing stays in object storage"


def test_the_same_run_and_inputs_have_one_job_and_others_another(cluster, run, settings, folder, monkeypatch):
    names = []

    def note(job):
        names.append(job["metadata"]["name"])
        succeeds(cluster, settings)(job)

    cluster.on_create = note
    run()
    run()
    run("pretrain.iterations=9")
    run(run_id="r2")
    (folder / "lab" / "index.parquet").write_bytes(b"other rows")
    run()
    assert names[0] == names[1]
    assert len(set(names)) == 4
    assert all(len(f"{name}-node-0-0.{name}") <= 2 * 63 and len(f"{name}-node-0-0-abcde") <= 63 for name in names)


def test_an_attempt_that_was_broken_off_finds_its_job(cluster, run, settings):
    first = []
    cluster.on_create = first.append
    # the first attempt dies after it made the job, without a word
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nodes._Wait, "until_complete", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run()
    assert len(cluster.jobs) == 1
    cluster.on_look = succeeds(cluster, settings)
    assert run() == {"loss": 1.5}
    assert len(first) == 1
    assert [method for method, _ in cluster.asked].count("POST") == 1


def test_two_who_make_it_at_once_share_one_job(cluster, run, settings):
    """The second is told 409: it was made in between."""
    made = []
    cluster.on_create = lambda job: made.append(job["metadata"]["name"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nodes._Wait, "until_complete", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run()
    cluster.faults["GET"] = [404]  # it looks before the other one made it
    cluster.on_look = succeeds(cluster, settings)
    assert run() == {"loss": 1.5}
    assert len(made) == 1


def test_a_result_that_was_left_is_taken_without_a_job(cluster, run, settings):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ObjectStore, "download_folder", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        cluster.on_create = succeeds(cluster, settings)
        with pytest.raises(KeyboardInterrupt):
            run()
    cluster.asked.clear()
    assert run() == {"loss": 1.5}
    assert not cluster.asked


def test_a_job_that_is_leaving_is_waited_for_and_made_anew(cluster, run, settings):
    made = []
    cluster.on_create = made.append
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nodes._Wait, "until_complete", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run()
    (job,) = cluster.jobs.values()
    job["metadata"]["deletionTimestamp"], cluster.keeps = "2026-01-01T00:00:00Z", 3

    def again(job):
        cluster.keeps = 0
        made.append(job)
        succeeds(cluster, settings)(job)

    cluster.on_create = again
    assert run() == {"loss": 1.5}
    assert len(made) == 2


def test_faults_of_the_server_are_waited_out(cluster, run, settings, capsys):
    looks = []

    def look(job):
        looks.append(job)
        if len(looks) == 1:
            cluster.faults["GET"] = [500, 503, 410, 429, "cut"]
        if len(looks) == 3:
            succeeds(cluster, settings)(job)

    cluster.on_look = look
    assert run() == {"loss": 1.5}
    assert "HTTP 410" in capsys.readouterr().err


def test_a_server_that_stays_away_ends_the_attempt_and_not_the_job(cluster, run, monkeypatch):
    monkeypatch.setattr(nodes, "AWAY_S", 0.2)
    cluster.on_create = lambda _: cluster.faults.update(GET=[500] * 1000)
    with pytest.raises(TransientError, match="could not read"):
        run()
    assert len(cluster.jobs) == 1


@pytest.mark.parametrize(
    ("status", "message", "remedy"),
    [
        (403, "trainjobs is forbidden", "k8s/components/trainer"),
        (403, 'admission webhook "validator.trainjob" denied: no such ClusterTrainingRuntime', "CODA_TRAIN_RUNTIME"),
        (422, "spec.trainer is invalid", "CODA_TRAIN_RUNTIME"),
    ],
)
def test_a_refusal_names_what_to_mend(cluster, run, status, message, remedy):
    cluster.faults["POST"] = [(status, message)]
    with pytest.raises(ConfigError, match="refused to create") as caught:
        run()
    assert message[:20] in caught.value.problems[0].found
    assert remedy in caught.value.problems[0].remedy


def test_a_cluster_without_trainer_says_so(cluster, run):
    cluster.installed = False
    with pytest.raises(ConfigError, match="not installed"):
        run()


CASES = {
    "memory": ([died("n-0", 1, at="2026-01-01T00:00:00Z"), died("n-1", 137, "OOMKilled", "2026-01-01T00:00:01Z")],
               ConfigError, "want of memory"),
    "code": ([died("n-0", 1)], CodaError, "ValueError: the reason"),
    "drained": ([died("n-0", 137)], StoppedError, "was lost"),
    "evicted": ([died("n-0", 1), pod("n-1", reason="Evicted", message="disk pressure")], StoppedError, "disk pressure"),
    "preempted": ([died("n-0", 1), pod("n-1", conditions=[{"type": "DisruptionTarget", "status": "True"}])],
                  StoppedError, "was lost"),
    "gone": ([], StoppedError, "FailedJobs"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_failed_job_tells_the_reason_of_the_first_pod(cluster, run, case, capsys):
    pods, kind, words = CASES[case]
    cluster.pods, cluster.logs = pods, {"n-0": "Traceback\nValueError: the reason\n"}
    cluster.on_look = lambda job: cluster.end(job["metadata"]["name"], "Failed", "FailedJobs", "jobset failed")
    with pytest.raises(kind) as caught:
        run()
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert not cluster.jobs, "the next attempt makes a job of its own"
    if case == "code":
        assert "ValueError: the reason" in capsys.readouterr().err


def test_torchrun_outlives_a_process_that_was_killed_for_memory(cluster, run):
    cluster.pods = [died("n-0", 1)]
    cluster.logs = {"n-0": "traceback : Signal 9 (SIGKILL) received by PID 31\n"}
    cluster.on_look = lambda job: cluster.end(job["metadata"]["name"], "Failed")
    with pytest.raises(ConfigError, match="want of memory"):
        run()


def test_the_error_that_a_process_recorded_is_the_error_of_the_step(cluster, run, settings):
    def fail(job):
        problem = {"where": "w", "found": "f", "expected": "e", "remedy": "Do it."}
        failure = {"error": "ConfigError", "message": "Its own words.", "problems": [problem]}
        place_of(job, settings).put("failure.json", json.dumps(failure).encode())
        cluster.end(job["metadata"]["name"], "Failed")

    cluster.pods, cluster.on_create = [died("n-0", 1)], fail
    with pytest.raises(ConfigError, match=r"Its own words\.\n  - w: found f"):
        run()
    # an earlier attempt's words are not those of the next one
    cluster.on_create = succeeds(cluster, settings)
    assert run() == {"loss": 1.5}


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "CreateContainerConfigError"])
def test_machines_that_can_never_start_are_not_waited_for(cluster, run, monkeypatch, reason):
    monkeypatch.setattr(nodes, "PULL_S", 0.2)
    waits = container(waiting={"reason": reason, "message": "not found"})
    cluster.pods = [pod("n-0", "Pending", waits), pod("n-1", "Running")]
    with pytest.raises(ConfigError, match="cannot start") as caught:
        run()
    assert f"{reason} not found" in str(caught.value)
    assert not cluster.jobs


def test_an_image_that_comes_late_is_no_mistake(cluster, run, settings, monkeypatch):
    monkeypatch.setattr(nodes, "PULL_S", 0.3)
    cluster.pods = [pod("n-0", "Pending", container(waiting={"reason": "ErrImagePull"})), pod("n-1", "Running")]
    looks = []

    def look(job):
        looks.append(job)
        if len(looks) == 3:
            cluster.pods = [pod("n-0", "Running"), pod("n-1", "Running")]
        if len(looks) == 15:
            succeeds(cluster, settings)(job)

    cluster.on_look = look
    assert run() == {"loss": 1.5}


@pytest.mark.parametrize("suspended", [True, False])
def test_a_queue_is_waited_for_but_not_without_end(cluster, run, monkeypatch, capsys, suspended):
    monkeypatch.setattr(nodes, "START_S", 0.5)
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    cluster.pods = [] if suspended else [pod("n-0", "Pending", conditions=[condition])]
    if suspended:
        cluster.on_look = lambda job: cluster.end(job["metadata"]["name"], "Suspended", "Suspended", "by Kueue")
    with pytest.raises(TransientError, match="no room"):
        run()
    assert ("by Kueue" if suspended else "Unschedulable: 0/3 nodes") in capsys.readouterr().err
    assert not cluster.jobs


def test_a_step_that_is_told_to_stop_stops_its_job(cluster, run):
    deleted = []
    cluster.on_delete = deleted.append
    cluster.on_create = lambda _: threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(StoppedError, match="interrupted"):
        run()
    assert len(deleted) == 1


def test_a_job_that_somebody_deletes_is_told(cluster, run):
    cluster.on_look = lambda job: cluster.jobs.pop(job["metadata"]["name"])
    with pytest.raises(StoppedError, match="deleted"):
        run()


def test_what_several_machines_need_is_asked_for(params, folder, settings, tmp_path, monkeypatch):
    paths = {"dataset": folder, "out": tmp_path / "out"}
    for change in ({"checkpoints": "/somewhere"}, {"image": ""}):
        with pytest.raises(ConfigError):
            run_on_nodes("pretrain", paths, params=params("compute.nodes=2"), run_id="r", texts={},
                         settings=settings.model_copy(update=change))  # fmt: skip
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="no cluster here"):
        run_on_nodes("pretrain", paths, params=params("compute.nodes=2"), run_id="r", texts={}, settings=settings)


class Machines:
    """Two machines: a torchrun each, with the variables that Trainer's torch plugin sets (2.0 to 2.3)."""

    def __init__(self, cluster, settings):
        self.cluster, self.settings, self.started, self.ports = cluster, settings, [], []
        cluster.on_create, cluster.on_look, cluster.on_delete = self.create, self.look, self.delete

    def create(self, job):
        trainer, port = job["spec"]["trainer"], str(free_port())
        given = self.settings.environment
        names = {item["name"] for item in trainer["env"]}
        assert given.keys() <= names
        for rank in range(trainer["numNodes"]):
            world = {
                "PET_NNODES": str(trainer["numNodes"]), "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
                "PET_NODE_RANK": str(rank), "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": port,
            }  # fmt: skip
            command = [sys.executable, *trainer["command"][1:]]
            environment = {**os.environ, **given, **world, "OMP_NUM_THREADS": "1"}
            self.started.append(subprocess.Popen(command, env=environment))

    def look(self, job):
        codes = [one.poll() for one in self.started]
        if None not in codes:
            self.cluster.end(job["metadata"]["name"], "Failed" if any(codes) else "Complete")

    def delete(self, _):
        for one in self.started:
            if one.poll() is None:
                one.send_signal(signal.SIGTERM)


def test_two_machines_learn_what_two_processes_do_and_go_on_after_a_stop(cluster, settings, dataset, params, tmp_path):
    """Broken off in the middle, and started again: the bits of two processes of one machine."""
    changes = ("compute.nodes=2", "compute.processes=1", "pretrain.iterations=40")
    machines = Machines(cluster, settings)
    done = tmp_path / "done"

    def go():
        return pretrain(dataset, done, params=params(*changes), settings=settings, run_id="r")

    kept = ObjectStore(f"{settings.checkpoints}/r/pretrain", settings.s3_endpoint)

    def stop():
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline and not any(item.key.endswith("digests.json") for item in kept.list()):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    with pytest.raises(StoppedError):
        go()
    assert [one.wait(60) for one in machines.started] == [1, 1]
    # torchrun ends with 1 whatever its processes end with; their last word is a checkpoint
    assert any(item.key.endswith("digests.json") for item in kept.list())
    machines.started.clear()
    numbers = go()
    assert numbers["iterations"] == 40
    assert numbers["seconds"] < 100
    local = tmp_path / "local"
    pretrain(dataset, local, params=params("compute.processes=2", "pretrain.iterations=40"),
             settings=offline_settings(tmp_path / "work"), run_id="r")  # fmt: skip
    for part in ("extractor", "state"):
        ours, theirs = (safetensors.numpy.load_file(at / part / "weights.safetensors") for at in (done, local))
        assert all(np.array_equal(ours[name], tensor) for name, tensor in theirs.items())
    assert (done / "pretraining.json").is_file()
