"""A small source release and unlabelled plates: adaptation in well under a second."""

from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from servers import moto_server
from typer.testing import CliRunner

from coda.adaptation.base import Base, FrozenHead, Incumbent
from coda.cli.predict import app as predict_app
from coda.config import Params, load_params
from coda.contracts.release import DataRevision, ReleaseRecord
from coda.networks.alignment import fit_statistics
from coda.networks.extractor import Extractor, save_extractor
from coda.networks.head import SOURCE_STATISTICS, new_head, save_head
from coda.plates.dataset import load_fields, open_batches
from coda.plates.fieldset import FieldSet
from coda.registry import DEFAULT_SCOPE, Provenance, ReleaseLog, register_extractor, register_head
from coda.simulation.delivery import simulate_batch
from coda.simulation.design import Design, plan_experiment
from coda.steps.ingest import ingest
from coda.training.methods.dino.state import new_state, save_state
from coda.training.tokens import extract_tokens

__all__ = ["moto_server"]

DESIGN = Design(
    mechanisms=2, compounds_per_mechanism=2, plate_wells=24, negcon_wells=4, poscon_wells=0, sites_per_well=1,
    field_px=64,
)  # fmt: skip

TINY = (
    "extractor.overrides={img_size: 16, patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2}",
    "crops.centre=32", "crops.global_size=16", "crops.local_size=8",
    "dino.prototypes=12", "dino.hidden_dim=16", "dino.bottleneck_dim=8",
    "adaptation.budget.iterations=8", "adaptation.budget.batch_size=6", "adaptation.budget.checkpoint_every=3",
    "adaptation.budget.learning_rate=0.01",
    "head.depth=1", "head.num_heads=2", "gate.bootstrap=50",
    "compute.threads=1", "compute.precision=float32",
)  # fmt: skip
CLASSES = ("actin", "proteasome", "tubulin")


@pytest.fixture(scope="session")
def tiny_changes() -> tuple[str, ...]:
    """The same as a person would give them, one after the other."""
    return TINY


@pytest.fixture(scope="session")
def tiny(root) -> Callable[..., Params]:
    """Parameters of a network that adapts in milliseconds, with changes as dotted.path=value."""

    def build(*changes: str) -> Params:
        return load_params(root / "params.yaml", [root / "params" / "demo.yaml"], [*TINY, *changes])

    return build


def plates(*, batches: int = 1, plates: int = 2, compounds: int = 4, controls: int = 2, sites: int = 1) -> FieldSet:
    """Noisy fields with a pattern for each compound; every batch has its own brightness and contrast."""
    rows, kinds, nuisance = [], [], []
    for batch in range(batches):
        for plate in range(plates):
            for well in range(compounds + controls):
                control = well >= compounds
                for site in range(sites):
                    name = "DMSO" if control else f"compound_{well}"
                    rows.append(
                        {
                            "image_id": f"lab/b{batch}/p{plate}/A{well + 1:02d}/{site}", "Metadata_Source": "lab",
                            "Metadata_Batch": f"b{batch}", "Metadata_Plate": f"b{batch}p{plate}",
                            "Metadata_Well": f"A{well + 1:02d}", "Metadata_Site": site, "Metadata_Treatment": name,
                            "Metadata_Compound": name, "Metadata_pert_type": "negcon" if control else "trt",
                            "Metadata_Dose_uM": 0.0 if control else 5.0,
                        }
                    )  # fmt: skip
                    kinds.append(compounds if control else well)
                    nuisance.append(batch * plates + plate)
    rng = np.random.default_rng(0)
    patterns = rng.integers(20, 120, (compounds + 1, 3, 8, 8))
    images = np.tile(patterns[kinds], (1, 1, 4, 4)) + rng.integers(0, 40, (len(rows), 3, 32, 32))
    images = images * (1 + 0.2 * np.array(nuisance))[:, None, None, None]
    return FieldSet(np.minimum(images, 255).astype(np.uint8), pd.DataFrame(rows), ("DNA", "AGP", "RNA"))


@pytest.fixture(scope="session")
def make_plates() -> Callable[..., FieldSet]:
    """Builds the fields of some batches and plates."""
    return plates


@pytest.fixture(scope="session")
def make_base(tiny) -> Callable[..., Base]:
    """Builds a source release with random networks; a fresh copy each time, since adaptation changes its state."""
    params = tiny()
    state = new_state(params, seed=0)
    extractor = Extractor(state.teacher.config).eval()
    extractor.load_state_dict(state.teacher.state_dict())
    statistics = fit_statistics(extract_tokens(extractor, plates(batches=2), params))

    def build(*, classes: tuple[str, ...] = CLASSES, head_seed: int = 5) -> Base:
        heads = {
            name: FrozenHead(
                new_head(params, extractor, classes, name, seed=head_seed).requires_grad_(requires_grad=False).eval(),
                statistics,
                str(number) * 64,
            )
            for number, name in enumerate(("none", "standardise"))
        }
        return Base(deepcopy(extractor), "a" * 64, deepcopy(state), heads)

    return build


@pytest.fixture(scope="session")
def make_incumbent(tiny, make_base) -> Callable[..., Incumbent]:
    """Builds a release of the source's own: another extractor than the base's, with a head of the base."""

    def build(alignment: str = "standardise", **changes) -> Incumbent:
        base = make_base()
        state = new_state(tiny(), seed=7)
        extractor = Extractor(state.teacher.config).eval()
        extractor.load_state_dict(state.teacher.state_dict())
        head = base.heads["standardise" if alignment == "standardise" else "none"]
        shared = {"extractor": extractor, "extractor_digest": "b" * 64, "head": head, "alignment": alignment}
        return Incumbent(**{**shared, **changes})

    return build


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("steps")


@pytest.fixture(scope="session")
def settings(moto_server, folder):
    return moto_server.settings(folder)


@pytest.fixture(scope="session")
def params(tiny, root):
    return tiny("ingest.workers=1", f"gate.policy={root / 'tests' / 'flow' / 'smoke_gate.yaml'}")


@pytest.fixture(scope="session")
def datasets(folder, params, settings):
    """A first batch and a second one, each in its own dataset folder."""
    experiment = plan_experiment(3, DESIGN)
    for batch in ("b1", "b2"):
        simulate_batch(experiment, "lab_b", batch, [f"{batch}_p1", f"{batch}_p2"], folder / "raw", workers=1)
        manifest = folder / "raw" / "lab_b" / batch / "manifest.json"
        ingest([str(manifest)], folder / batch, params=params, settings=settings)
    return {batch: folder / batch for batch in ("b1", "b2")}


@pytest.fixture(scope="session")
def released(folder, params, settings, datasets, make_base):
    """A source release of random networks, registered and promoted to the default."""
    base = make_base()
    fields = load_fields(open_batches(datasets["b1"]), base.extractor.channels, params.crops.centre)
    extra = {SOURCE_STATISTICS: fit_statistics(extract_tokens(base.extractor, fields, params)).to_bytes()}
    save_extractor(folder / "net" / "extractor", base.extractor)
    save_state(folder / "net" / "state", base.state)
    revision = DataRevision(source="lab_a", batch="b1", path="lab_a/b1", revision="0" * 40, digest="0.dir")
    origin = Provenance(run_id="train-1", source="lab_a", params_digest="0" * 64, data=(revision,))
    extractor = register_extractor(folder / "net" / "extractor", folder / "net" / "state", origin, settings=settings)
    heads = []
    for name, frozen in base.heads.items():
        save_head(folder / "net" / name, frozen.head, extra)
        heads.append(register_head(folder / "net" / name, extractor, origin, settings=settings))
    record = ReleaseRecord(
        release_id="train-1", source="lab_a", created_at=datetime.now(UTC), method="source", extractor=extractor,
        head=heads[0], alignment="none", heads=tuple(heads), run_id="train-1", params_digest="0" * 64,
        gate_sentence="", approver="gate",
    )  # fmt: skip
    ReleaseLog(settings).append(record, DEFAULT_SCOPE, action="promote", by="test", reason="first", after=0)
    return record


@pytest.fixture
def command(root, tiny_changes, monkeypatch):
    """`coda predict` as a person types it: (settings, arguments) -> what it prints; errors come through as they are."""

    def call(settings, *arguments):
        for name, value in settings.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("COLUMNS", "200")
        changes = [word for change in tiny_changes for word in ("--set", change)]
        files = ["--params", str(root / "params.yaml"), "--overlay", str(root / "params" / "demo.yaml")]
        result = CliRunner().invoke(predict_app, [*map(str, arguments), *files, *changes])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return call
