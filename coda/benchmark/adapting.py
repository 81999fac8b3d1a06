"""Target jobs: a source model on another source, as it is, adapted to it, or taught image by image."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from coda.adaptation.coda import adapt_extractor
from coda.adaptation.pairing_policy import PairingPolicy, choose_pairing
from coda.adaptation.ttt import predict_with_ttt
from coda.benchmark.job import Job
from coda.benchmark.scoring import keep_and_score, unseen_compounds
from coda.benchmark.source_models import MODEL_NAMES, Answer, Answers, SourceModel, Training, answers, frozen_heads
from coda.benchmark.specs import loaded
from coda.config.params import Params
from coda.contracts.recipe import Alignment
from coda.evaluation.predictions.prediction_levels import TREATED
from coda.networks.extractor import load_extractor, save_extractor
from coda.plates.fieldset import FieldSet
from coda.training.checkpoint import Checkpoints
from coda.training.methods.base import SslTask
from coda.training.methods.mae.state import load_mae_state
from coda.training.methods.registry import load_state, method_of
from coda.training.subset import chosen_fields

Method = Literal["unadapted", "adapted", "ttt"]

ADAPTED_NAMES: dict[SourceModel, str] = {"dino": "ODA", "cb": "CODA", "mae": "ODA-MAE"}
"""What the paper calls a source model after adaptation."""


@dataclass(frozen=True)
class Adapting:
    """Applies one trained model to one target source.

    Attributes:
        trained: Training of the source model.
        target: Source that is predicted; with 'adapted' and 'ttt', its images are learned from, without labels.
        method: What is done.
        params: Parameters of adaptation; they may differ from those of the training in the sections `adaptation`,
            `dino` (all but the shape of its head), `mae.adaptation` and `ttt`.
        label: Name of the system in the tables, in place of the paper's.
        raw: What is done to the tokens before the head on raw tokens; the paper does nothing.
    """

    trained: Training
    target: str
    method: Method
    params: Params
    label: str = ""
    raw: Alignment = "none"

    @property
    def system(self) -> str:
        """Name of the system in the tables."""
        model = self.trained.model
        paper = {
            "unadapted": MODEL_NAMES[model],
            "adapted": ADAPTED_NAMES.get(model, ""),
            "ttt": "TTT",
        }
        return self.label or paper[self.method]

    def job(self) -> Job:
        """Return the job, which comes after the training's."""
        adaptation = self.params.model_dump(mode="json", include={"adaptation"})["adaptation"]
        for name in ("candidates", "archive_batches"):
            adaptation.pop(name)
        values: dict[str, Any] = {
            "unadapted": {},
            "adapted": {**self.params.model_dump(mode="json", include={"mae"}), "fields": adaptation["fields"]}
            if self.trained.model == "mae"
            else {**adaptation, "dino": self.params.dino.model_dump(mode="json")},
            "ttt": self.params.model_dump(mode="json", include={"ttt", "mae"}),
        }[self.method]
        key = {
            "kind": "target", "target": self.target, "method": self.method,
            "params": values, "alignment": self.params.alignment.model_dump(),
        }  # fmt: skip
        if self.raw != "none":
            key["raw"] = self.raw
        name = f"seed {self.trained.seed}: {self.system}, {self.trained.source} to {self.target}"
        return Job(name, key, self, after=(self.trained.job(),))

    @property
    def root(self) -> Path:
        """Folder of the benchmark."""
        return self.trained.root

    def do(self, folder: Path) -> dict[str, Any]:
        """Adapt where asked, write predictions (and the adapted extractor) below `folder`, and return the scores."""
        data = loaded(self.trained.data)
        fields = data.of(self.target)
        source = self.trained.job().folder(self.root)
        told: dict[str, Any] = {}
        if self.method == "ttt":
            fields, found = self._taught(folder, source, fields)
        else:
            extractor_folder = source
            if self.method == "adapted":
                told, extractor_folder = self._adapt(folder, source, fields), folder
            extractor = load_extractor(extractor_folder / "extractor")
            found = answers(extractor, source, self.trained.model, self.params, fields, self.raw)
        new = unseen_compounds(data.labels, self.trained.unseen)
        rows = [
            {**row, "alignment": way, "target": self.target}
            for way, answer in found.items()
            for row in keep_and_score(
                fields.table,
                answer.probabilities,
                answer.classes,
                data.labels,
                folder / f"{way}.parquet",
                new,
                features=answer.features,
            )
        ]
        Checkpoints(folder / "checkpoints").forget()
        return {**told, "scores": rows}

    def _taught(self, folder: Path, source: Path, fields: FieldSet) -> tuple[FieldSet, Answers]:
        # every image is by itself, and controls are not scored: they are left out for time
        treated = fields.take(np.asarray(fields.table["Metadata_pert_type"].isin(TREATED), dtype=bool))
        head = frozen_heads(source)["none"].head
        probabilities = predict_with_ttt(
            load_mae_state(source / "state"), head, treated, self.params, seed=self.trained.seed,
            checkpoints=Checkpoints(folder / "checkpoints"),
        )  # fmt: skip
        return treated, {"none": Answer(head.classes, probabilities)}

    def _adapt(self, folder: Path, source: Path, fields: FieldSet) -> dict[str, Any]:
        kept, seed, params = Checkpoints(folder / "checkpoints"), self.trained.seed, for_a_source(self.params)
        if self.trained.model == "mae":
            state = load_mae_state(source / "state")
            compounds = frozen_heads(source)["none"].compounds
            chosen = chosen_fields(fields.table, params.adaptation.fields, compounds, key="adaptation.fields")
            fields = fields if chosen is None else fields.take(chosen)
            method = method_of("mae")
            told = method.train(state, params, SslTask(fields, "adapt", params.pairs, seed, checkpoints=kept))
            save_extractor(folder / "extractor", state.encoder)
            return {"seconds": {"adaptation": told.seconds}, "log": told.log[-1:], "alarms": list(told.alarms)}
        pairing = pairing_for(self.trained.model, fields, params)
        dino = load_state(source / "state")
        result = adapt_extractor(
            dino, fields, params, pairing, seed=seed, heads=frozen_heads(source), checkpoints=kept
        )  # fmt: skip
        save_extractor(folder / "extractor", result.state.extractor)
        return {
            "seconds": {"adaptation": result.seconds}, "log": result.log[-1:], "alarms": list(result.alarms),
            "rung": pairing.reason, "stopping": result.stopping,
        }  # fmt: skip


def for_a_source(params: Params) -> Params:
    """Return parameters for adapting to a whole source: in batches of ``adaptation.source_batch_size``, if given."""
    adaptation = params.adaptation
    if adaptation.source_batch_size is None:
        return params
    budget = adaptation.budget.model_copy(update={"batch_size": adaptation.source_batch_size})
    return params.model_copy(update={"adaptation": adaptation.model_copy(update={"budget": budget})})


def pairing_for(model: SourceModel, fields: FieldSet, params: Params) -> PairingPolicy:
    """Return how a source model is adapted: single images for ODA; for CODA pairs, if any."""
    if model == "dino":
        return PairingPolicy("oda", "none", 0.0, "ODA, views of single images: the source model was trained so.")
    return choose_pairing(fields.table, min_pairable_share=params.adaptation.min_pairable_share, by=params.pairs.by)


def work(job: Job) -> dict[str, Any]:
    """Do a job whose task knows how; for `coda.benchmark.jobs.run_jobs`."""
    result: dict[str, Any] = job.task.do(job.folder(job.task.root))
    return result
