"""Figure 4 of the paper: ODA on a whole source, on each batch or on each plate, at an equal number of iterations."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coda.adaptation.coda import adapt_extractor
from coda.benchmark.adapting import Adapting, pairing_for, work
from coda.benchmark.benchmark_report import write_report
from coda.benchmark.jobs import EventCallback, Job, attempt_jobs
from coda.benchmark.score_tables import long_table, summary_table
from coda.benchmark.scoring import keep_and_score, score_predictions
from coda.benchmark.setting import Setting
from coda.benchmark.source_models import Training, answers, frozen_heads
from coda.benchmark.specs import loaded
from coda.benchmark.systems import score_table, summarise
from coda.benchmark.table2 import Result, by_source, notes
from coda.evaluation.predictions.prediction_levels import classes_of
from coda.plates.fieldset import FieldSet
from coda.training.checkpoint import Checkpoints
from coda.training.methods.dino.state import load_state
from studies.figures.granularity import Granularity, Subset, subsets, with_equal_iterations

EACH: dict[Granularity, str] = {"batch": "ODA, each batch by itself", "plate": "ODA, each plate by itself"}
SINGLE: dict[Granularity, str] = {"batch": "ODA, a single batch for all", "plate": "ODA, a single plate for all"}
WHOLE = "ODA, whole source"
SYSTEMS = ("Supervised", "Dual-model-DINO", WHOLE, EACH["batch"], EACH["plate"], SINGLE["batch"], SINGLE["plate"])

CAPTION = (
    "'Each ... by itself': an extractor for each, which predicts its own fields; all of them are scored together. 'A "
    "single ... for all': an extractor for each, which predicts the whole source; the mean over them. All are adapted "
    "with the same batch size for the same number of iterations."
)


@dataclass(frozen=True)
class AdaptingPart:
    """Adapts to one plate or batch of a target by ODA and predicts the whole target.

    Attributes:
        whole: ODA on the whole target, whose start and parameters are shared.
        by: What the part is.
        name: Which one: ``source/batch`` or ``source/batch/plate``.
    """

    whole: Adapting
    by: Granularity
    name: str

    @property
    def root(self) -> Path:
        """Folder of the benchmark."""
        return self.whole.root

    @property
    def trained(self) -> Training:
        """Training of the source model."""
        return self.whole.trained

    def job(self) -> Job:
        """Return the job."""
        key = {**self.whole.job().key, "kind": "part", "by": self.by, "part": self.name}
        name = f"seed {self.trained.seed}: ODA, {self.trained.source} to {self.name}"
        return Job(name, key, self, after=(self.trained.job(),))

    def part(self, fields: FieldSet) -> Subset:
        """Return the rows of the part."""
        return next(subset for subset in subsets(fields.table, self.by, "all") if subset.name == self.name)

    def do(self, folder: Path) -> dict[str, Any]:
        """Adapt, write the predictions of the whole target below `folder`, and return their scores."""
        data, seed = loaded(self.trained.data), self.trained.seed
        fields = data.of(self.whole.target)
        chosen = fields.take(self.part(fields).adapt)
        pairing = pairing_for("dino", chosen, self.whole.params)
        params = with_equal_iterations(self.whole.params, fields.table, chosen.table, pairing)
        source, kept = self.trained.job().folder(self.root), Checkpoints(folder / "checkpoints")
        result = adapt_extractor(
            load_state(source / "state"),
            chosen,
            params,
            pairing,
            seed=seed,
            heads=frozen_heads(source),
            checkpoints=kept,
        )
        classes, probabilities, _ = answers(result.state.teacher, source, "dino", params, fields)["none"]
        kept.forget()
        scores = keep_and_score(fields.table, probabilities, classes, data.labels, folder / "none.parquet")
        return {"scores": scores, "seconds": {"adaptation": result.seconds}, "alarms": list(result.alarms)}


@dataclass(frozen=True)
class Pooling:
    """Brings the parts of one target together.

    Attributes:
        parts: All plates, or all batches, of the target.
    """

    parts: tuple[AdaptingPart, ...]

    @property
    def root(self) -> Path:
        """Folder of the benchmark."""
        return self.parts[0].root

    @property
    def trained(self) -> Training:
        """Training of the source model."""
        return self.parts[0].trained

    @property
    def system(self) -> str:
        """Name of the system of scores that do not name their own."""
        return EACH[self.parts[0].by]

    def job(self) -> Job:
        """Return the job."""
        first = self.parts[0]
        name = f"seed {first.trained.seed}: {EACH[first.by]}, {first.trained.source} to {first.whole.target}"
        return Job(name, {"kind": "pooled parts", "by": first.by}, self, after=tuple(p.job() for p in self.parts))

    def do(self, folder: Path) -> dict[str, Any]:
        """Score every field by the extractor of its own part, and average what each part's makes of all fields."""
        data, first = loaded(self.trained.data), self.parts[0]
        fields, tables, singles = data.of(first.whole.target), [], []
        for part in self.parts:
            table = pd.read_parquet(part.job().folder(self.root) / "none.parquet")
            tables.append(table.iloc[part.part(fields).adapt])
            singles.append(score_predictions(table, data.labels, classes_of(table)))
        pooled = pd.concat(tables, ignore_index=True)
        folder.mkdir(parents=True, exist_ok=True)
        pooled.to_parquet(folder / "none.parquet", index=False)
        shared = {"alignment": "none", "target": first.whole.target}
        own = score_predictions(pooled, data.labels, classes_of(pooled))
        mean = [
            {**rows[0], "value": float(np.mean([row["value"] for row in rows]))} for rows in zip(*singles, strict=True)
        ]
        return {
            "scores": [
                *({**row, **shared} for row in own),
                *({**row, **shared, "system": SINGLE[first.by]} for row in mean),
            ]
        }


def granularity(setting: Setting, out: Path, *, processes: int = 1, report: EventCallback | None = None) -> Result:
    """Adapt at every granularity and write the figure.

    Args:
        setting: Data, seeds, sources, targets and parameters.
        out: Folder of the report.
        processes: Jobs at the same time.
        report: Called with every event of a job.
    """
    jobs = lay_out_parts(setting)
    outcomes = attempt_jobs(jobs, work, setting.root, processes=processes, report=report)
    scored = [outcome for outcome in outcomes if not isinstance(outcome.job.task, AdaptingPart)]
    scores = score_table(scored)
    scores = scores[scores["alignment"] == "none"]
    summary = summarise(scores)
    tables, pictures = by_source(
        scores, setting, SYSTEMS, "granularity",
        alt="Accuracy of ODA at three granularities, trained on {}.", caption=CAPTION,
    )  # fmt: skip
    tables += [summary_table(summary, "granularity_summary", "All means")]
    tables += [long_table(scores, "granularity_scores", "All scores")]
    said = [CAPTION, *notes(setting, outcomes)]
    page = write_report(
        out, "Figure 4: ODA by source, batch and plate", tables, pictures, said,
        facts=setting.facts(outcomes), lead=setting.lead("Granularity of adaptation"),
    )  # fmt: skip
    return Result(scores, page, outcomes)


def lay_out_parts(setting: Setting) -> list[Job]:
    """Return the jobs: source models, unadapted and whole-source scores, every part, and what pools them."""
    jobs: dict[str, Job] = {}

    def add(wanted: Sequence[Job]) -> None:
        jobs.update((job.digest, job) for job in wanted)

    for seed, spec in setting.data.items():
        for source in setting.sources:
            dino = Training(spec, source, "dino", setting.params, seed, setting.root)
            supervised = Training(spec, source, "supervised", setting.params, seed, setting.root)
            add([dino.job(), supervised.job()])
            for target in (target for target in setting.targets if target != source):
                whole = Adapting(dino, target, "adapted", setting.params, label=WHOLE)
                add([Adapting(model, target, "unadapted", setting.params).job() for model in (supervised, dino)])
                add([whole.job()])
                table = loaded(spec).of(target).table
                for by in EACH:
                    parts = tuple(AdaptingPart(whole, by, subset.name) for subset in subsets(table, by))
                    add([*(part.job() for part in parts), Pooling(parts).job()])
    return list(jobs.values())
