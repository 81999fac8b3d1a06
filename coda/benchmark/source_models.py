"""Training jobs: the source models that the paper's systems start from, each a job that others build upon."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from coda.adaptation.base import FrozenHead
from coda.adaptation.serving import Service, Way, serve
from coda.benchmark.classical_references import Measured, references
from coda.benchmark.data import Labelled
from coda.benchmark.job import Job
from coda.benchmark.scoring import keep_and_score, unseen_compounds
from coda.benchmark.specs import DataSpec, loaded
from coda.config.params import Params
from coda.config.recorded import Today, model_facts, settled
from coda.contracts.recipe import Alignment, HeadAlignment
from coda.networks.artifact import folder_digest
from coda.networks.classical_head import front_of
from coda.networks.classifier import load_linear_head, save_linear_head
from coda.networks.extractor import Extractor, load_extractor, new_extractor, save_extractor
from coda.networks.head import (
    LABELS,
    SOURCE_STATISTICS,
    load_class_shares,
    load_head,
    load_labelled_compounds,
    load_source_statistics,
    save_head,
)
from coda.networks.profile import Profile
from coda.plates.fieldset import FieldSet
from coda.training.checkpoint import Checkpoints
from coda.training.classical_training import train_classical
from coda.training.head import train_head
from coda.training.head_dataset import cache_head_tokens
from coda.training.labels import LabelList, join
from coda.training.methods.base import SslTask
from coda.training.methods.registry import method_of
from coda.training.split import held_out_fields
from coda.training.subset import chosen_fields
from coda.training.supervised import train_supervised
from coda.training.tokens import predict_fields

SourceModel = Literal["supervised", "dino", "cb", "mae", "classical"]
"""What is trained on a source: end to end, by DINO on single images, by DINO on cross-batch pairs, by MAE; or the
classical head, on measured features."""

MODEL_NAMES: dict[SourceModel, str] = {
    "supervised": "Supervised", "dino": "Dual-model-DINO", "cb": "Dual-model-CB", "mae": "Dual-model-MAE",
    "classical": "Classical profile",
}  # fmt: skip
"""What the paper calls the model without adaptation."""

WAYS: tuple[tuple[Alignment, HeadAlignment], ...] = (
    ("none", "none"),
    ("coral", "none"),
    ("standardise", "standardise"),
)
"""Ways of serving: what is done to the tokens, and what was done to those that the head was trained on."""


@dataclass(frozen=True)
class Training:
    """Trains one model on one source and scores it on the held-out batch.

    Attributes:
        data: Where the fields come from.
        source: Source that is trained on.
        model: What is trained.
        params: Parameters; `params.seed` is not read.
        seed: Seed of weights, order and views.
        root: Folder of the benchmark.
        unseen: Share of each mechanism's compounds that no label is given of (`scoring.unseen_compounds`).
    """

    data: DataSpec
    source: str
    model: SourceModel
    params: Params
    seed: int
    root: Path
    unseen: float = 0.0

    @property
    def system(self) -> str:
        """Name of the system in the tables."""
        return MODEL_NAMES[self.model]

    def job(self) -> Job:
        """Return the job: its result depends on data, source and seed, and on the parameters that training reads."""
        sections = {"extractor", "crops", "pairs", "split", "alignment", "head"}
        own: Mapping[SourceModel, set[str]] = {"supervised": {"supervised"}, "mae": {"mae"}, "classical": set()}
        sections |= own.get(self.model, {"dino", "pretrain"})
        values = self.params.model_dump(mode="json", include=sections)
        if "mae" in values:
            values["mae"].pop("adaptation")
            values["fields"] = self.params.pretrain.fields
        key = {
            "kind": "training", "data": self.data.digest, "source": self.source,
            "model": self.model, "seed": self.seed, "params": values,
            "precision": self.params.compute.precision,
        }  # fmt: skip
        if self.unseen:
            key["unseen"] = self.unseen
        return Job(f"seed {self.seed}: {MODEL_NAMES[self.model]} on {self.source}", key, self)

    def do(self, folder: Path) -> dict[str, Any]:
        """Train, write model folders and in-domain predictions below `folder`, and return the scores."""
        data = loaded(self.data)
        fields = data.of(self.source)
        out = held_out_fields(fields.table, self.params.split)
        training, validation = fields.take(~out), fields.take(out)
        new = unseen_compounds(data.labels, self.unseen)
        given = LabelList({name: moa for name, moa in data.labels.compounds.items() if name not in new})
        labels, _ = join(given, training.table, data.name)
        kept = Checkpoints(folder / "checkpoints")
        if self.model == "supervised":
            trained = self._supervised(folder, training, validation, labels)
        elif self.model == "classical":
            trained = self._classical(folder, training, validation, labels)
        else:
            trained = self._dual(folder, training, validation, labels, kept)
        rows = self._in_domain(folder, data, validation)
        kept.forget()
        return {**trained, "scores": rows}

    def _supervised(self, folder: Path, training: FieldSet, validation: FieldSet, labels: LabelList) -> dict[str, Any]:
        result = train_supervised(
            training, validation, labels, self.params, seed=self.seed, checkpoints=Checkpoints(folder / "checkpoints")
        )
        save_extractor(folder / "extractor", result.extractor)
        save_linear_head(folder / "head", result.head)
        return {"seconds": {"training": result.seconds}, "log": result.log[-1:], "alarms": []}

    def _classical(self, folder: Path, training: FieldSet, validation: FieldSet, labels: LabelList) -> dict[str, Any]:
        # an extractor that never learned: its record of stains and crops is the profile's, its weights are not read
        extractor = new_extractor(self.params, seed=self.seed)
        save_extractor(folder / "extractor", extractor)
        result = train_classical(extractor, training, validation, labels, self.params)
        extra = {LABELS: labels.to_bytes(), SOURCE_STATISTICS: result.source.to_bytes()}
        save_head(folder / "heads" / "classical", result.head, extra)
        Measured.of(training, Profile(extractor.config), self.params, labels).write(folder)
        return {"seconds": {"training": result.seconds}, "log": [], "alarms": []}

    def _dual(
        self, folder: Path, training: FieldSet, validation: FieldSet, labels: LabelList, kept: Checkpoints
    ) -> dict[str, Any]:
        extractor, learned = self._extractor(folder, training, labels, kept)
        cached = cache_head_tokens(extractor, training, validation, labels, self.params, seed=self.seed)
        extra = {LABELS: labels.to_bytes(), SOURCE_STATISTICS: cached.source.to_bytes()}
        seconds = {"extractor": learned["seconds"]}
        for alignment in self.alignments():
            result = train_head(
                partial(cached.training, alignment), cached.validation(alignment), extractor, self.params,
                classes=labels.classes, alignment=alignment, seed=self.seed,
                checkpoints=Checkpoints(folder / "checkpoints" / alignment),
            )  # fmt: skip
            save_head(folder / "heads" / alignment, result.head, extra)
            seconds[f"head, {alignment}"] = result.seconds
        return {**learned, "seconds": seconds}

    def _extractor(
        self, folder: Path, training: FieldSet, labels: LabelList, kept: Checkpoints
    ) -> tuple[Extractor, dict[str, Any]]:
        params = self.params
        which = params.pretrain.fields
        chosen = chosen_fields(training.table, which, tuple(labels.compounds), key="pretrain.fields")
        training = training if chosen is None else training.take(chosen)
        method = method_of("mae" if self.model == "mae" else "dino")
        state = method.new_state(params, seed=self.seed)
        pairs = params.pairs.model_copy(update={"by": "none"}) if self.model == "dino" else params.pairs
        task = SslTask(training, "pretrain", pairs, self.seed, checkpoints=kept)
        result = method.train(state, params, task)
        method.save_state(folder / "state", state)
        save_extractor(folder / "extractor", state.extractor)
        return state.extractor, {
            "seconds": result.seconds, "log": result.log[-1:], "alarms": list(result.alarms),
        }  # fmt: skip

    def alignments(self) -> tuple[HeadAlignment, ...]:
        """Return what heads are trained for; the MAE, a baseline of the paper, has the paper's head alone."""
        return ("none",) if self.model == "mae" else self.params.head.alignments

    def _in_domain(self, folder: Path, data: Labelled, validation: FieldSet) -> list[dict[str, Any]]:
        extractor = load_extractor(folder / "extractor")
        found = answers(extractor, folder, self.model, self.params, validation)
        return [
            {**row, "alignment": way, "target": self.source}
            for way, answer in found.items()
            for row in keep_and_score(
                validation.table,
                answer.probabilities,
                answer.classes,
                data.labels,
                folder / f"in_domain_{way}.parquet",
                unseen_compounds(data.labels, self.unseen),
                features=answer.features,
            )
        ]


def frozen_heads(folder: Path) -> Mapping[HeadAlignment, FrozenHead]:
    """Return the heads of a dual model's training job."""
    found: dict[HeadAlignment, FrozenHead] = {}
    alignments: tuple[HeadAlignment, ...] = ("none", "standardise", "classical")
    for alignment in alignments:
        path = folder / "heads" / alignment
        if path.is_dir():
            head = load_head(path)
            shares, compounds = load_class_shares(path, head.classes), load_labelled_compounds(path)
            found[alignment] = FrozenHead(head, load_source_statistics(path), folder_digest(path), shares, compounds)
    return found


class Answer(NamedTuple):
    """What one way of serving gives.

    Attributes:
        classes: Classes of the head.
        probabilities: Shape (fields, classes).
        features: What the head read, pooled, shape (fields, width); None where nothing keeps it.
    """

    classes: tuple[str, ...]
    probabilities: Any
    features: Any = None


Answers = dict[str, Answer]
"""Way of serving -> what it gives."""


def answers(
    extractor: Extractor,
    trained: Path,
    model: SourceModel,
    params: Params,
    fields: FieldSet,
    raw: Alignment = "none",
) -> Answers:
    """Predict fields with an extractor and the frozen heads of a training job, in every way of serving.

    Args:
        extractor: The source's own or an adapted one.
        trained: Folder of the training job.
        model: What was trained there.
        params: Crops, compute and `alignment`.
        fields: Fields to predict; alignment is fitted on them, without labels.
        raw: What is done to the tokens where the answers are called 'none': the paper does nothing.

    Raises:
        ConfigError: The parameters contradict what the extractor was made with.
    """
    # a job that was trained on another machine is served in the precision that it was trained in
    params = settled(model_facts(extractor.config, "the extractor of this job"), Today.of(params))
    if model == "supervised":
        linear = load_linear_head(trained / "head")
        return {"none": Answer(linear.classes, predict_fields(extractor, linear, fields, params))}
    heads = frozen_heads(trained)
    if model == "mae":
        head = heads["none"].head
        return {"none": Answer(head.classes, predict_fields(extractor, head, fields, params))}
    if model == "classical":
        own = heads["classical"]
        way = Way("none", "standardise", own.head, own.source)  # standardised always: the system knows no other way
        served = serve(front_of(extractor, own.head), [way], fields, params)
        measured = Measured.of(fields, Profile(extractor.config), params)
        named = {
            name: Answer(own.head.classes, probabilities)
            for name, probabilities in references(Measured.read(trained), measured).items()
        }
        return {way.name: _answer(way, served), **named}
    ways = [
        Way(alignment, raw if alignment == "none" else alignment, heads[needed].head, heads[needed].source)
        for alignment, needed in WAYS
        if needed in heads
    ]
    served = serve(extractor, ways, fields, params)
    return {way.name: _answer(way, served) for way in ways}


def _answer(way: Way, served: Service) -> Answer:
    own = served.ways[way.name]
    return Answer(way.head.classes, own.probabilities, own.features)
