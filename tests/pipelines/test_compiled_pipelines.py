"""The compiled pipelines beside their definitions: up to date, and asking a cluster for what they must."""

import os
import subprocess
import sys

import pytest
import yaml
from kfp.dsl.types.type_utils import InconsistentTypeException

from coda.errors import ConfigError
from coda.runners.spec import compiled_path, for_one_machine, read_documents, with_gpus, with_image
from coda.settings import VARIABLES
from coda.trainer.train_job import CERTIFICATES, KEYS, OPTIONAL, REQUIRED, RUNTIME
from coda.trigger.endings import READING
from pipelines.resources import GIT, REGISTRY_KEYS, SIGNING, TALK_TO_MLFLOW

GPU_STEPS = {"pretrain", "train-head", "evaluate", "adapt", "predict"}
RIGHTS = {
    "plan-memory": "intake",
    "plan-plates": "intake", "ingest-plates": "intake", "ingest": "intake", "archive": "intake", "validate": "intake",
    "quality-verdict": "intake", "version": "version",
    "pretrain": "train", "train-head": "train", "evaluate": "train", "adapt": "train", "gate": "gate",
    "register-training": "register", "register-adaptation": "register", "release": "release", "predict": "predict",
    "report": "report", "conclude": "report",
}  # fmt: skip
STEPS = {
    "training": {
        "plan-memory",
        "plan-plates", "ingest-plates", "ingest", "validate", "version", "pretrain", "train-head", "evaluate",
        "register-training", "release", "report", "conclude",
    },
    "adaptation": {
        "plan-memory",
        "plan-plates", "ingest-plates", "ingest", "archive", "validate", "quality-verdict", "version", "adapt", "gate",
        "register-adaptation",
        "release", "predict", "report", "report-2", "conclude",
    },
}  # fmt: skip


@pytest.fixture(params=sorted(STEPS))
def name(request):
    return request.param


@pytest.fixture
def documents(name):
    return read_documents(compiled_path(name).read_text())


def compile_to(folder, root, *arguments, **variables):
    """Compile in a process of its own: KFP looks at the whole call stack, and a test's is deep."""
    command = [sys.executable, "-W", "error", "-m", "pipelines.compile", "--out", str(folder), *arguments]
    done = subprocess.run(
        command, check=True, cwd=root, env={**os.environ, **variables}, capture_output=True, text=True
    )
    assert done.stdout.split() == [str(folder / f"{name}.yaml") for name in STEPS]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory, root):
    folder = tmp_path_factory.mktemp("compiled")
    compile_to(folder, root)
    return folder


def test_compiled_text_equals_the_file_in_the_repository(name, compiled):
    fresh, kept = (compiled / f"{name}.yaml").read_text(), compiled_path(name).read_text()
    assert fresh == kept, "run `make compile-pipelines`"


def test_compiling_does_not_read_the_environment_unless_asked(tmp_path, root):
    environment = {"CODA_IMAGE": "registry.example/coda@sha256:" + "0" * 64}
    compile_to(tmp_path, root, **environment)
    images = {
        executor["container"]["image"]
        for path in tmp_path.glob("*.yaml")
        for executor in read_documents(path.read_text())[0]["deploymentSpec"]["executors"].values()
    }
    assert images == {environment["CODA_IMAGE"]}


def test_every_step_is_there_and_none_installs_anything(name, documents):
    executors = documents[0]["deploymentSpec"]["executors"]
    assert {key.removeprefix("exec-") for key in executors} == STEPS[name]
    for executor in executors.values():
        text = yaml.safe_dump(executor)
        assert "pip install" not in text
        assert executor["container"]["image"] == "coda-pipeline:0.1.0-python"


def test_every_step_has_limits_time_addresses_credentials_and_no_root(name, documents):
    spec, platform = documents
    kubernetes = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for key, executor in spec["deploymentSpec"]["executors"].items():
        resources, cluster = executor["container"]["resources"], kubernetes[key]
        assert resources["resourceCpuLimit"] == resources["resourceCpuRequest"]
        assert resources["resourceMemoryLimit"] == resources["resourceMemoryRequest"]
        assert int(cluster["activeDeadlineSeconds"]) > 0
        assert cluster["securityContext"]["runAsNonRoot"] is True
        assert int(cluster["securityContext"]["runAsUser"]) > 0
        names = {item["envVar"] for part in cluster["configMapAsEnv"] for item in part["keyToEnv"]}
        signs = {SIGNING} if "register" in key else set()
        assert names == {*REQUIRED, *OPTIONAL, *signs}
        files = {part["secretName"] for part in cluster.get("secretAsVolume", ())}
        step = key.removeprefix("exec-").removesuffix("-2")
        assert files == {*([GIT[RIGHTS[step]]] if RIGHTS[step] in GIT else ()), *(["coda-signing"] if signs else ())}
        assert {part["configMapName"] for part in cluster["configMapAsEnv"]} == {"coda-services"}
        secrets = {part["secretName"]: {item["envVar"] for item in part["keyToEnv"]} for part in cluster["secretAsEnv"]}
        rights = RIGHTS[key.removeprefix("exec-").removesuffix("-2")]
        talks = {"coda-mlflow-client": set(REGISTRY_KEYS)} if rights in TALK_TO_MLFLOW else {}
        assert secrets == {f"coda-store-{rights}": set(KEYS), **talks}
        gpu = key.removeprefix("exec-") in GPU_STEPS
        assert ("accelerator" in resources) == gpu == ("tolerations" in cluster)
        assert ("/dev/shm" in yaml.safe_dump(cluster.get("emptyDirMounts", []))) == gpu


def test_training_steps_may_ask_for_several_gpus(compiled, tmp_path, root):
    compile_to(tmp_path, root, "--pretrain-gpus", "4")
    one, four = ((folder / "training.yaml").read_text() for folder in (compiled, tmp_path))
    asked = read_documents(four)[0]["deploymentSpec"]["executors"]
    assert asked["exec-pretrain"]["container"]["resources"]["accelerator"]["resourceCount"] == "4"
    assert asked["exec-train-head"]["container"]["resources"]["accelerator"]["resourceCount"] == "1"
    assert read_documents(with_gpus(four, "pretrain", 1)) == read_documents(one)
    compile_to(tmp_path, root, "--adapt-gpus", "2")
    asked = read_documents((tmp_path / "adaptation.yaml").read_text())[0]["deploymentSpec"]["executors"]
    assert asked["exec-adapt"]["container"]["resources"]["accelerator"]["resourceCount"] == "2"
    with pytest.raises(ConfigError, match="asks for no GPU"):
        with_gpus(one, "ingest", 2)


def test_configured_variables_are_settings():
    known = {*VARIABLES.values(), *CERTIFICATES, RUNTIME, "AWS_DEFAULT_REGION"}
    assert {*REQUIRED, *OPTIONAL, SIGNING} <= known


def test_every_task_is_retried_and_remembered_for_its_own_run_alone(documents):
    """Kubeflow's key of a task is made of image, command, inputs (artifacts by identity): the run's name is in it."""
    spec, remembered, found = documents[0], 0, 0
    for part in _dags(spec):
        for name, task in part["tasks"].items():
            if "retryPolicy" not in task:
                continue
            found += 1
            assert task["retryPolicy"]["maxRetryCount"] >= 2
            assert "cacheKey" not in task["cachingOptions"], "a key of one's own leaves the inputs out"
            if task["cachingOptions"].get("enableCache"):
                remembered += 1
                source = task["inputs"]["parameters"]["run_id"]["componentInputParameter"]
                assert source.removeprefix("pipelinechannel--") == "run_id"
            else:
                assert name == "conclude"
    assert (found, remembered) == (found, found - 1)
    assert found >= 11


def test_decisions_depend_on_single_outputs_only(documents):
    conditions = [
        task["triggerPolicy"]["condition"]
        for part in _dags(documents[0])
        for task in part["tasks"].values()
        if "triggerPolicy" in task and "condition" in task["triggerPolicy"]
    ]
    for condition in conditions:
        assert "-Output'" in condition, "only single-return components decide alike in every runner"


def test_one_machine_needs_no_cluster(documents, name):
    text = for_one_machine(compiled_path(name).read_text(), "here-python")
    (spec,) = read_documents(text)
    assert "resources" not in text
    assert "retryPolicy" not in text
    tasks = {name: task for part in _dags(spec) for name, task in part["tasks"].items()}
    forgotten = {name for name, task in tasks.items() if task["cachingOptions"] != {"enableCache": True}}
    assert forgotten == {"conclude"}


def test_image_is_replaced_everywhere_and_nothing_else(documents, name):
    changed = read_documents(with_image(compiled_path(name).read_text(), "x:1"))
    for executor in changed[0]["deploymentSpec"]["executors"].values():
        assert executor["container"].pop("image") == "x:1"
    for executor in documents[0]["deploymentSpec"]["executors"].values():
        executor["container"].pop("image")
    assert changed == documents


@pytest.mark.parametrize("wrong", ["prediction", "../training", ""])
def test_unknown_pipeline_is_refused_with_the_known_ones(wrong):
    with pytest.raises(ConfigError, match="training, adaptation"):
        compiled_path(wrong)


# Invalid siblings: mistakes that the compiler, not a cluster at night, has to find.
CHECKED = 'dataset = valid.outputs["checked"]'
ARTIFACT_AS_TEXT = f'{CHECKED}\n        needs(release(run_id=dataset, draft=dataset), SMALL, "release")'
INVALID = {
    "an artifact where text is expected": (CHECKED, ARTIFACT_AS_TEXT),
    "an output that does not exist": ('read.outputs["dataset"]', 'read.outputs["data"]'),
    "a model where a dataset is expected": ("=dataset, pretrained=network)", "=network, pretrained=network)"),
    "an input left out": ("labels=labels, dataset=dataset, pretrained=n", "dataset=dataset, pretrained=n"),
}  # fmt: skip


@pytest.fixture(scope="module")
def sibling(root):
    """Source of the training pipeline, which compiles here as it is."""
    text = (root / "pipelines" / "training.py").read_text()
    exec(compile(text, "training.py", "exec"), {"__name__": "whole"})  # noqa: S102
    return text


@pytest.mark.parametrize("mistake", sorted(INVALID))
def test_broken_sibling_does_not_compile(mistake, sibling):
    before, after = INVALID[mistake]
    assert before in sibling
    with pytest.raises((TypeError, KeyError, ValueError, InconsistentTypeException)):
        exec(compile(sibling.replace(before, after, 1), "broken.py", "exec"), {"__name__": "broken"})  # noqa: S102


def _dags(spec):
    return [part["dag"] for part in [spec["root"], *spec["components"].values()] if "dag" in part]


def test_weights_are_handed_to_the_step_that_registers_them_alone():
    """They outweigh all tables of a batch: a step that reads numbers must not download them."""
    spec, _ = read_documents(compiled_path("adaptation").read_text())
    dags = [part["dag"] for part in [spec["root"], *spec["components"].values()] if "dag" in part]
    takers = {
        name
        for dag in dags
        for name, task in dag["tasks"].items()
        for given in task.get("inputs", {}).get("artifacts", {}).values()
        if given.get("taskOutputArtifact", {}).get("outputArtifactKey") == "models"
    }
    assert takers == {"register-adaptation"}


def test_the_trigger_knows_every_step_that_reads_a_delivery():
    """What such a step cannot use is the delivery's fault: the batch is refused, and nobody looks into a failure."""
    spec, _ = read_documents(compiled_path("adaptation").read_text())
    reads = {
        task["componentRef"]["name"].removeprefix("comp-").replace("-", "_")
        for name, part in spec["components"].items()
        if "dag" in part and not name.startswith("comp-condition")
        for task in part["dag"]["tasks"].values()
        if "executorLabel" in spec["components"][task["componentRef"]["name"]]
    }
    assert reads == READING
