"""The parameters: the paper's values are there, and whatever is wrong is said at once, with its path and a remedy."""

from pathlib import Path

import pytest
import yaml

from coda.config import load_params, params_digest
from coda.errors import ConfigError
from coda.plates.solvents import read_solvents
from coda.quality.suite import load_suite


def presets(root):
    found = sorted((root / "params").rglob("*.yaml"))
    assert found, "no overlay was found"
    return found


def test_every_preset_loads(root):
    base = root / "params.yaml"
    digests = {params_digest(load_params(base, [overlay])) for overlay in presets(root)}
    digests.add(params_digest(load_params(base)))
    assert len(digests) == len(presets(root)) + 1


def test_the_papers_values(root):
    params = load_params(root / "params.yaml")
    assert params.extractor.arch == "deit_small_patch16_224"
    assert params.extractor.weights == "imagenet"
    assert (params.pretrain.epochs, params.pretrain.learning_rate, params.pretrain.warmup_epochs) == (300, 1e-4, 10)
    assert params.pretrain.ema_start == params.adaptation.budget.ema_start == 0.996
    assert params.crops.locals_per_image == 3
    assert params.pairs.by == "batch"
    assert params.head.budget.warmup_epochs == 3
    assert len(params.extractor.channels) == 3


def test_each_value_names_its_source(root):
    lines = (root / "params.yaml").read_text().splitlines()
    silent = [
        line
        for line in lines
        if ": " in line and not line.lstrip().startswith("#") and "[" not in line.partition("#")[2]
    ]
    # iterations (the other half of epochs) and machine settings have no source in the paper
    allowed = ("iterations: null", "min_", "device", "threads", "attention")
    unexplained = [
        line for line in silent if not line.rstrip().endswith(":") and not any(name in line for name in allowed)
    ]
    assert [line for line in unexplained if "precision" not in line] == []


def write(tmp_path, content):
    path = tmp_path / "overlay.yaml"
    path.write_text(yaml.safe_dump(content) if not isinstance(content, str) else content)
    return path


def test_all_problems_at_once(root, tmp_path):
    overlay = write(
        tmp_path,
        {
            "pretrian": {"epochs": 1.0},
            "crops": {"global_size": "big", "local_size": 90},
            "dino": {"student_temperature": -1.0},
            "adaptation": {"budget": {"iterations": 5}},
        },
    )
    with pytest.raises(ConfigError) as caught:
        load_params(root / "params.yaml", [overlay])
    places = [problem.where for problem in caught.value.problems]
    assert any("pretrian" in place for place in places)
    assert "crops.global_size" in places
    assert "crops.local_size" in places, "an impossible combination is hidden by an invalid value elsewhere"
    assert "dino.student_temperature" in places
    assert "adaptation.budget" in places
    assert all(problem.remedy and problem.found and problem.expected for problem in caught.value.problems)
    assert "did you mean 'pretrain'" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("setting", "place"),
    [
        ("crops.global_size=512", "crops.global_size"),
        ("extractor.channels=[DNA,Mito,Mito 2]", "extractor.channels.2"),
        ("extractor.channels=[DNA,Mito,Mito2]", "extractor.channels"),
        ("ingest.channels=[DNA,AGP,RNA,Actin,ACTIN]", "ingest.channels"),
        ("ingest.renamed={Actin: none}", "ingest.renamed.Actin"),
        ("ingest.channels=[DNA]", "extractor.channels"),
        ("pretrain.epochs=null", "pretrain"),
        ("pretrain.warmup_epochs=300.0", "pretrain.warmup_epochs"),
        ("pretrain.learning_rate_end=1.0", "pretrain.learning_rate_end"),
        ("head.alignments=[none]", "adaptation.candidates"),
        ("adaptation.candidates=[coda]", "gate.policy.baseline"),
        ("adaptation.candidates=[unadapted,magic]", "adaptation.candidates"),
        ("adaptation.stopping.criterion=agreement", "adaptation.stopping.every"),
        ("adaptation.stopping.patience=0", "adaptation.stopping.patience"),
        ("adaptation.dino_head=thawed", "adaptation.dino_head"),
        ("adaptation.trainable=middle_blocks", "adaptation.trainable"),
        ("adaptation.anchor.weights=-1.0", "adaptation.anchor.weights"),
        ("adaptation.diversity.prior=guess", "adaptation.diversity.prior"),
        ("seed=-1", "seed"),
        ("seed=1.5", "seed"),
        ("pairs.by=lab", "pairs.by"),
        ("crops.eval_grid=9", "crops.eval_grid"),
        ("nonsense", "nonsense"),
    ],
)
def test_each_mistake_has_its_place(root, setting, place):
    with pytest.raises(ConfigError) as caught:
        load_params(root / "params.yaml", (), [setting])
    assert place in [problem.where for problem in caught.value.problems], caught.value


RAW_HEAD_ONLY = ("head.alignments=[none]", "adaptation.candidates=[unadapted, coda]")


@pytest.mark.parametrize(
    ("settings", "place", "told"),
    [
        (
            ("adaptation.stopping={every: 5, criterion: marginal_entropy, alignment: none, patience: 2}",
             "adaptation.diversity.strength=1.0"),
            "adaptation.stopping.criterion", "does not optimise itself",
        ),
        (
            (*RAW_HEAD_ONLY, "adaptation.diversity={strength: 1.0, head: standardise, prior: uniform}"),
            "adaptation.diversity.head", "'standardise'",
        ),
        (
            (*RAW_HEAD_ONLY, "adaptation.stopping={every: 5, criterion: none, alignment: standardise, patience: 2}"),
            "adaptation.stopping.alignment", "'standardise'",
        ),
        (
            ("extractor.overrides={depth: 2}", "adaptation.trainable=last_blocks", "adaptation.trainable_blocks=3"),
            "adaptation.trainable_blocks", "2 blocks",
        ),
        (
            ("extractor.overrides={embed_dim: 24}", "adaptation.trainable=low_rank", "adaptation.low_rank_rank=25"),
            "adaptation.low_rank_rank", "24",
        ),
    ],
)  # fmt: skip
def test_options_of_adaptation_that_cannot_work_together(root, settings, place, told):
    with pytest.raises(ConfigError) as caught:
        load_params(root / "params.yaml", (), settings)
    found = {problem.where: problem.expected for problem in caught.value.problems}
    assert told in found[place], caught.value


def test_options_that_are_off_need_nothing(root):
    load_params(root / "params.yaml", (), [*RAW_HEAD_ONLY, "adaptation.diversity.head=standardise"])
    load_params(root / "params.yaml", (), ["adaptation.trainable_blocks=99", "adaptation.low_rank_rank=9999"])


NO_YAML = ["[", "2026-13-45", "{[a]: b}", "!!python/object:os.system 1", "9" * 5000, "*nothing", "[" * 5000, "\t: 1"]
"""What YAML refuses by errors of its own, and what its constructors raise besides."""


@pytest.mark.parametrize("text", NO_YAML, ids=range(len(NO_YAML)))
def test_what_is_no_yaml_is_told_with_its_place_wherever_it_is_typed(root, tmp_path, text):
    with pytest.raises(ConfigError, match=r"--set split\.seed: found"):
        load_params(root / "params.yaml", (), [f"split.seed={text}"])
    path = write(tmp_path, f"seed: {text}\n")
    readers = [lambda: load_params(root / "params.yaml", [path]), lambda: load_suite(str(path))]
    for read in (*readers, lambda: read_solvents(path)):
        with pytest.raises(ConfigError, match=path.name):
            read()


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [", ""])
def test_files_that_are_no_parameters(root, tmp_path, content):
    with pytest.raises(ConfigError):
        load_params(root / "params.yaml", [write(tmp_path, content)])
    with pytest.raises(ConfigError, match="no such file"):
        load_params(tmp_path / "missing.yaml")


def test_the_digest_ignores_the_machine_and_nothing_else(root):
    base = root / "params.yaml"
    plain = params_digest(load_params(base))
    assert params_digest(load_params(base, (), ["compute.threads=7"])) == plain
    assert params_digest(load_params(base, (), ["seed=7"])) != plain


def test_params_survive_the_json_that_pipelines_carry(demo_params):
    from coda.config import Params

    text = demo_params.model_dump_json()
    assert Params.model_validate_json(text) == demo_params
    assert len(text) < 100_000


def test_overlays_of_free_mappings_replace_them(root):
    params = load_params(root / "params.yaml", [Path(root / "params" / "demo.yaml")])
    assert params.extractor.overrides["embed_dim"] == 96


def test_numbers_as_people_write_them(root, tmp_path):
    overlay = write(tmp_path, "pretrain: {learning_rate: 2e-4, learning_rate_end: 1E-6}")
    params = load_params(root / "params.yaml", [overlay], ["head.budget.learning_rate=3e-5"])
    assert (params.pretrain.learning_rate, params.pretrain.learning_rate_end) == (2e-4, 1e-6)
    assert params.head.budget.learning_rate == 3e-5


def test_parameters_written_as_json_are_read_again(root, tmp_path, demo_params):
    path = tmp_path / "params.yaml"
    path.write_text(demo_params.model_dump_json())
    assert load_params(path) == demo_params


def test_channels_can_be_called_otherwise_also_where_the_file_is_older_than_the_key(root, tmp_path):
    older = yaml.safe_load((root / "params.yaml").read_text())
    del older["ingest"]["renamed"]
    for base in (root / "params.yaml", write(tmp_path, older)):
        assert load_params(base).ingest.renamed == {}
        assert load_params(base, (), ["ingest.renamed={Actin: AGP, \"488\": ER}"]).ingest.renamed == {
            "Actin": "AGP", "488": "ER",
        }  # fmt: skip
