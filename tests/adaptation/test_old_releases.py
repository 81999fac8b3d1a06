"""Releases from before models recorded what they were made with: the parameters that their run kept tell, or nobody."""

from datetime import UTC, datetime

import pytest

from coda.config import load_params, params_digest
from coda.config.recorded import TRAINED, Today
from coda.contracts.release import ReleaseRecord
from coda.errors import ConfigError, IntegrityError
from coda.networks.alignment import fit_statistics
from coda.networks.extractor import save_extractor
from coda.networks.head import SOURCE_STATISTICS, save_head
from coda.plates.dataset import load_fields, open_batches
from coda.registry import Provenance, ReleaseLog, register_extractor, register_head
from coda.registry.drafts import keep_params
from coda.steps.predict import predict
from coda.training.methods.dino.state import save_state
from coda.training.tokens import extract_tokens

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and SQLAlchemy warn about their own insides


@pytest.fixture(scope="module")
def old(folder, params, settings, datasets, make_base):
    """A release whose folders and record say what those of the first version said."""
    base = make_base(head_seed=9)
    fields = load_fields(open_batches(datasets["b1"]), base.extractor.channels, params.crops.centre)
    extra = {SOURCE_STATISTICS: fit_statistics(extract_tokens(base.extractor, fields, params)).to_bytes()}
    head = base.heads["standardise"].head
    for network in (base.extractor, base.state.student, base.state.teacher, head):
        network.config.pop(TRAINED)
    save_extractor(folder / "old" / "extractor", base.extractor)
    save_state(folder / "old" / "state", base.state)
    save_head(folder / "old" / "head", head, extra)
    origin = Provenance(run_id="old-1", source="lab_a", params_digest=params_digest(params))
    extractor = register_extractor(folder / "old" / "extractor", folder / "old" / "state", origin, settings=settings)
    return ReleaseRecord(
        release_id="old-1", source="lab_a", created_at=datetime.now(UTC), method="source", extractor=extractor,
        head=register_head(folder / "old" / "head", extractor, origin, settings=settings), alignment="standardise",
        run_id="old-1", params_digest=params_digest(params), gate_sentence="", approver="gate",
    )  # fmt: skip


@pytest.fixture
def own(settings, moto_server):
    return settings.model_copy(update={"platform": moto_server.bucket().uri})


def tables(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_kept_parameters_of_its_run_tell_what_its_folders_do_not(old, own, datasets, params, root, tmp_path):
    keep_params("old-1", params.model_dump(mode="json"), settings=own)
    given, defaults = old.write(tmp_path / "r.json"), Today(load_params(root / "params.yaml"))
    predict(datasets["b2"], given, tmp_path / "stated", params=params, settings=own, publish=False)
    said = predict(datasets["b2"], given, tmp_path / "bare", params=defaults, settings=own, publish=False)
    assert tables(tmp_path / "bare") == tables(tmp_path / "stated")
    assert said["served_as"]["compute.precision"] == "float32"
    assert any("how the pixels were prepared" in note for note in said["notes"])
    with pytest.raises(ConfigError, match=r"(?s)different parameters.*crops\.centre, run old-1.*448.*32"):
        keep_params("old-1", defaults.params.model_dump(mode="json"), settings=own)


def test_kept_parameters_that_are_not_the_runs_are_refused(old, own, datasets, root, tmp_path):
    other = load_params(root / "params.yaml")
    keep_params("old-1", other.model_dump(mode="json"), settings=own)
    with pytest.raises(IntegrityError, match=r"runs/old-1/params\.json"):
        predict(datasets["b2"], old.write(tmp_path / "r.json"), tmp_path / "no", params=Today(other), settings=own)


def test_what_is_told_nowhere_must_be_stated_by_a_person(old, own, datasets, params, root, tmp_path):
    given, defaults = old.write(tmp_path / "r.json"), load_params(root / "params.yaml")
    with pytest.raises(ConfigError) as caught:
        predict(datasets["b2"], given, tmp_path / "no", params=Today(defaults), settings=own)
    missing = {item.where for item in caught.value.problems}
    assert missing == {
        "compute.precision", "compute.attention", "alignment.by", "alignment.wells",
        "predict.min_top_over_chance",
    }  # fmt: skip
    assert all("--set" in item.remedy for item in caught.value.problems)
    assert not list(ReleaseLog(own).store.list("predictions/"))
    stated = Today(params, dict.fromkeys(missing, "--set"))
    said = predict(datasets["b2"], given, tmp_path / "stated", params=stated, settings=own, publish=False)
    assert sum("no record of this model tells it" in note for note in said["notes"]) == len(missing)
