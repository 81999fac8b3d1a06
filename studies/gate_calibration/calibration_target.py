"""One target of a calibration: every model on it, with all label-free numbers, its truth, and what a gate would see."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coda.adaptation.base import Base
from coda.adaptation.candidates import Candidate, candidates_for
from coda.adaptation.references import reference_features
from coda.adaptation.serving import Served, Service, Way, serve
from coda.benchmark.job import Job
from coda.benchmark.scoring import score_predictions, truth
from coda.benchmark.source_models import Training, frozen_heads
from coda.benchmark.specs import Simulated, loaded
from coda.config.params import Params
from coda.contracts.recipe import Method, Recipe
from coda.evaluation.gate.measures import CandidateMeasures, measure_candidate
from coda.evaluation.gate.untrained_features import measure_reference
from coda.evaluation.predictions.prediction_levels import field_table
from coda.plates.fieldset import FieldSet
from coda.training.labels import LabelList
from coda.training.split import group_names, held_out_fields
from studies.gate_calibration.calibration_metrics import SourceSide, all_metrics
from studies.gate_calibration.calibration_models import Model, Strangers, load_base, models


@dataclass(frozen=True)
class Target:
    """One run of a calibration: a source release on one target.

    Attributes:
        trained: Training of the source release, model 'cb'.
        data: The target's plates.
        name: Source of those plates.
        shift: Strength of the shift.
        layout: What is on the plates, for people.
        params: Parameters.
        other: Training of another source with the same seed: its heads and plates are material for broken models.
        gate_only: Whether only what the gate reads is measured, without checkpoints: what comparing policies needs.
    """

    trained: Training
    data: Simulated
    name: str
    shift: float
    layout: str
    params: Params
    other: Training
    gate_only: bool = False

    @property
    def root(self) -> Path:
        """Folder of the benchmark."""
        return self.trained.root

    def job(self) -> Job:
        """Return the job, which comes after the training's."""
        key = {
            "kind": "calibration", "data": self.data.digest,
            "target": self.name, "shift": self.shift, "layout": self.layout, "bootstrap": self.params.gate.bootstrap,
            "params": self.params.model_dump(mode="json", include={"adaptation", "alignment", "pairs"}),
            "other": self.other.source,
        }  # fmt: skip
        pair = f"{self.trained.source} to {self.name}"
        title = f"seed {self.trained.seed}: {pair}, shift {self.shift:g}, {self.layout}"
        if self.gate_only:
            key["gate_only"] = True
        return Job(title, key, self, after=(self.trained.job(), self.other.job()))

    def do(self, folder: Path) -> dict[str, Any]:
        """Make and measure every model; nothing but numbers is kept, so `folder` stays empty."""
        del folder
        held = loaded(self.trained.data).of(self.trained.source)
        held = held.take(held_out_fields(held.table, self.params.split))
        target = loaded(self.data)
        base = load_base(self.trained.job().folder(self.root))
        elsewhere = None if self.other.source == self.name else loaded(self.other.data).of(self.other.source)
        strangers = Strangers(frozen_heads(self.other.job().folder(self.root)), elsewhere)
        measuring = Measuring(
            base, target.of(self.name), held, target.labels, self.params, self.trained.seed, strangers,
            gate_only=self.gate_only,
        )  # fmt: skip
        entries = measuring.entries()
        return {
            "seed": self.trained.seed, "source": self.trained.source, "target": self.name, "shift": self.shift,
            "layout": self.layout, "models": entries, "references": measuring.references,
            "sets": candidate_sets(entries),
        }  # fmt: skip


def candidate_sets(entries: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what a gate may be asked: three ways without adaptation beside three with one adapted extractor.

    Args:
        entries: Models as `Target.do` describes them, one for each way of serving.

    Returns:
        Name of the adapted model -> ``candidates`` (positions in `entries`) and ``references`` (their key).
    """
    places: dict[tuple[str, str], list[int]] = {}
    for place, entry in enumerate(entries):
        places.setdefault((entry["view"], entry["model"]), []).append(place)
    return {
        model: {"candidates": [*places[view, "unadapted"], *own], "references": view}
        for (view, model), own in places.items()
        if entries[own[0]]["adapted"] and "@" not in model
    }


class Measuring:
    """Serves and measures the models of one target."""

    def __init__(
        self, base: Base, fields: FieldSet, held: FieldSet, labels: LabelList, params: Params, seed: int,
        strangers: Strangers, *, gate_only: bool = False,
    ) -> None:  # fmt: skip
        """Take what all models share.

        Args:
            base: The source release.
            fields: Fields of the target.
            held: Held-out fields of the source.
            labels: Compound -> mechanism; read for the truth only.
            params: Parameters.
            seed: Of models and bootstraps.
            strangers: Heads and plates of other sources.
            gate_only: See `Target`.
        """
        self.strangers, self.gate_only = strangers, gate_only
        self.base, self.fields, self.held, self.params, self.seed = base, fields, held, params, seed
        self.labels, self.classes = labels, next(iter(base.heads.values())).head.classes
        self.references: dict[str, list[dict[str, Any]]] = {}
        self._source_truth = truth(held.table, labels, self.classes).astype(np.int64)
        self._before: Service | None = None
        self._baselines: dict[str, NDArray[np.float32]] = {}

    def entries(self) -> list[dict[str, Any]]:
        """Return every model in every way of serving, as JSON values, and note the references of every view."""
        found: list[dict[str, Any]] = []
        made = models(
            self.base, self.fields, self.params, self.strangers, seed=self.seed, checkpoints=not self.gate_only
        )
        for model in made:
            found += self._measured(model)
            if not model.adapted:
                self.references[model.view] = self._references(model)
        return found

    def _measured(self, model: Model) -> list[dict[str, Any]]:
        candidates = self._candidates(model)
        heads = model.heads or self.base.heads
        ways = [Way(c.name, c.alignment, heads[c.head].head, heads[c.head].source) for c in candidates]
        served = serve(model.extractor, ways, model.fields, self.params)
        source = None if self.gate_only else serve(model.extractor, ways, self.held, self.params)
        if self._before is None:
            self._before = source
        if not model.adapted:
            # 'unadapted' is the first way; everything on these images and wells is compared with it
            self._baselines[model.view] = served.ways[ways[0].name].features
        return [self._entry(model, candidate, served, source) for candidate in candidates]

    def _candidates(self, model: Model) -> list[Candidate]:
        if not model.adapted:
            return candidates_for(["unadapted", "aligned", "coral"], "coda")
        method: Method = "oda" if model.name == "oda" else "coda"
        return candidates_for([method, f"{method}+aligned", f"{method}+coral"], method)

    def _entry(self, model: Model, candidate: Candidate, served: Service, source: Service | None) -> dict[str, Any]:
        rows, answers = model.fields.table, served.ways[candidate.name]
        table = field_table(rows, answers.probabilities, self.classes)
        measured = measure_candidate(
            candidate.name, table, answers.features, complexity=candidate.complexity,
            samples=self.params.gate.bootstrap, seed=self.seed, baseline_features=self._baselines[model.view],
            alarms=model.alarms,
        )  # fmt: skip
        metrics = self._metrics(measured, model, candidate, answers, source)
        # the truth knows the true plate map, whatever map the model was judged by
        true = score_predictions(
            field_table(self.fields.table, answers.probabilities, self.classes), self.labels, self.classes
        )
        accuracy = {row["level"]: row["value"] for row in true if row["metric"] == "accuracy"}
        return {
            "model": model.name, "view": model.view, "way": candidate.alignment,
            "adapted": model.adapted, "broken": model.broken,
            "metrics": metrics, "field_accuracy": accuracy["image"], "well_accuracy": accuracy["well"],
            "measures": measured.model_dump(mode="json"),
        }  # fmt: skip

    def _metrics(
        self, measured: CandidateMeasures, model: Model, candidate: Candidate, answers: Served, source: Service | None
    ) -> dict[str, float]:
        if source is None or self._before is None:
            return {}
        own, before = source.ways[candidate.name], self._before.ways[_without_adaptation(candidate)]
        side = SourceSide(
            self.held.table, self._source_truth, own.features, own.probabilities, before.probabilities
        )  # fmt: skip
        rows = model.fields.table
        return all_metrics(measured, rows, answers.features, answers.probabilities, side, seed=self.seed)

    def _references(self, model: Model) -> list[dict[str, Any]]:
        alignment, rows = self.params.alignment, model.fields.table
        groups = group_names(rows, alignment.by)
        fitted = np.ones(len(rows), dtype=bool)
        if alignment.wells == "negcon":
            fitted = (rows["Metadata_pert_type"] == "negcon").to_numpy()
        features = reference_features(model.fields, self.base.extractor.config, self.params, seed=self.seed)
        samples = self.params.gate.bootstrap
        return [
            measure_reference(name, rows, values, groups, fitted, samples=samples, seed=self.seed).model_dump(
                mode="json"
            )
            for name, values in features.items()
        ]


def _without_adaptation(candidate: Candidate) -> str:
    """Return the candidate that does the same to the tokens of the unadapted extractor."""
    return str(Recipe.of(None, candidate.alignment))
