"""The whole loop at the smallest size: a trained source and new batches, on embedded services."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from coda.config import Params, load_params
from coda.contracts import MANIFEST_NAME
from coda.local.services import EmbeddedServices
from coda.runners.port import RunOutcome, run_pipeline
from coda.settings import Settings
from coda.simulation.broken import break_batch
from coda.simulation.delivery import simulate_batch
from coda.simulation.delivery_files import describe_file
from coda.simulation.design import Design, plan_experiment, write_labels
from coda.storage.bulk import upload_folder
from coda.storage.objects import store_for

DESIGN = Design(
    mechanisms=2,
    compounds_per_mechanism=2,
    negcon_wells=4,
    poscon_wells=0,
    plate_wells=24,
    sites_per_well=2,
    field_px=128,
)


@dataclass
class Loop:
    """One small platform: its services, its parameters, and how to deliver and run."""

    folder: Path
    services: EmbeddedServices
    params: Params

    @property
    def settings(self) -> Settings:
        return self.services.settings

    def deliver(
        self,
        laboratory: str,
        batch: str,
        plates: int = 2,
        broken: tuple[str, ...] = (),
        change: Callable[[Path], None] | None = None,
        source: str | None = None,
    ) -> str:
        """Upload a batch as a producer would, and return the address of its manifest.

        Args:
            laboratory: Laboratory that makes the plates.
            batch: Name of the batch.
            plates: How many plates.
            broken: Kinds of `coda.simulation.broken`.
            change: Called with the batch folder before it is uploaded.
            source: Name of the source; the laboratory's when not given.
        """
        experiment = plan_experiment(3, DESIGN)
        names = [f"{laboratory}_{batch}_p{number}" for number in range(1, plates + 1)]
        out = self.folder / "plates"
        simulate_batch(experiment, laboratory, batch, names, out, workers=1)
        prefix = f"{source or laboratory}/{batch}"
        if source is not None:
            copy_as(out / laboratory / batch, out / prefix, laboratory, source)
        if broken:
            break_batch(out / prefix, broken, 0)
        if change is not None:
            change(out / prefix)
        write_labels(experiment, self.folder / "labels.csv")
        landing = store_for(self.settings.landing, self.settings)
        upload_folder(landing, out / prefix, prefix, last=("manifest.json",), workers=4)
        return landing.url(f"{prefix}/manifest.json")

    def train(self) -> RunOutcome:
        """Train on two batches of lab_a."""
        uris = [self.deliver("lab_a", batch) for batch in ("b1", "b2")]
        platform = store_for(self.settings.platform, self.settings)
        platform.put("labels/mechanisms.csv", (self.folder / "labels.csv").read_bytes())
        labels = platform.url("labels/mechanisms.csv")
        arguments = {"run_id": "train-1", "manifest_uris": uris, "labels": labels, "params": self.params}
        return run_pipeline("training", arguments, runner="local", settings=self.settings, work=self.folder / "work")

    def adapt(self, manifest: str, run_id: str, runner: str = "local") -> RunOutcome:
        """Run the adaptation pipeline on one delivered batch."""
        arguments = {"run_id": run_id, "manifest_uri": manifest, "params": self.params}
        return run_pipeline("adaptation", arguments, runner=runner, settings=self.settings, work=self.folder / "work")


def smoke_params(root: Path) -> Params:
    """The demo's parameters at the smallest size."""
    return load_params(root / "params.yaml", smoke_overlays(root))


def copy_as(template: Path, copy: Path, old: str, new: str, **changes: str) -> None:
    """Copy a batch folder as one of another source: in file names, tables and manifest.

    Args:
        template: Batch folder.
        copy: Where to; what is there already stays.
        old: Name of the source.
        new: Its name in the copy.
        changes: Fields of the manifest.
    """
    for path in sorted(template.rglob("*")):
        target = copy / str(path.relative_to(template)).replace(old, new)
        if path.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            text = path.suffix in (".csv", ".json")
            target.write_bytes(path.read_bytes().replace(old.encode(), new.encode()) if text else path.read_bytes())
    manifest = json.loads((copy / MANIFEST_NAME).read_text(encoding="utf-8")) | changes
    for plate in manifest["plates"]:
        plate["files"] = [describe_file(copy, file["path"]).model_dump() for file in plate["files"]]
    (copy / MANIFEST_NAME).write_text(json.dumps(manifest), encoding="utf-8")


def smoke_overlays(root: Path) -> list[Path]:
    """The files that make the parameters as small as they can be."""
    return [root / "params" / "demo.yaml", root / "tests" / "flow" / "smoke.yaml"]
