"""The protocol on a user's own labelled plates: held-out batches, other microscopes on real pixels, one page."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from coda.benchmark.benchmark_figures import canvas
from coda.benchmark.benchmark_report import ReportPicture, ReportTable, write_report
from coda.benchmark.gains import gain_table, gains_over_aligned
from coda.benchmark.held_out_plates import HELD_OUT, HeldOutPlates, choose_held_out, described, target_of
from coda.benchmark.jobs import EventCallback
from coda.benchmark.pixel_shifts import seen_through
from coda.benchmark.score_tables import WAY_WORDS, long_table, present, recall_table
from coda.benchmark.setting import Setting, require_pairs
from coda.benchmark.specs import ingested, loaded
from coda.benchmark.systems import SYSTEMS, summarise
from coda.benchmark.table2 import Result, as_json, matrices, notes, run_table
from coda.config.params import Params
from coda.errors import ConfigError, Problem
from coda.simulation.shifts import Shift

NOTES = (
    (
        "Shifted targets are the held-out plates with pixels changed as another microscope would: a gain there is a "
        "gain over optics, not over biology, staining or another laboratory's habits, which only real batches of "
        "another source show."
    ),
    "Budgets and limits are those of the parameters. Whoever chooses them on these plates flatters these numbers.",
)
PSEUDO = (
    "Pseudo-compounds (names with ~) are wells of one compound: accuracy on 'unseen' ones is accuracy on unseen wells, "
    "and intervals over them are intervals over wells."
)


def real_setting(
    seeds: Sequence[int],
    params: Params,
    root: Path,
    *,
    folders: Sequence[Path],
    labels: Path,
    source: str,
    targets: Sequence[str] = (),
    hold_out: Sequence[str] = (),
    shifts: Sequence[Shift] = (),
    pseudo_compounds: int = 0,
) -> Setting:
    """Return the setting on a user's plates, read once.

    Args:
        seeds: Seeds of the training.
        params: Parameters.
        root: Folder of the benchmark.
        folders: Dataset folders.
        labels: Label table.
        source: Source that is trained on.
        targets: Other sources that are applied to; all others of the folders when not given.
        hold_out: Batches or plates of the source that are held out; see `choose_held_out`.
        shifts: Other microscopes.
        pseudo_compounds: Compounds that each mechanism has at least, by dividing wells; 0 divides none.

    Raises:
        CodaError: The plates, the labels or what is to be held out cannot be used.
    """
    from coda.plates.dataset import open_batches

    there = {batch.manifest.source for folder in folders for batch in open_batches(folder)}
    others = tuple(targets) or tuple(sorted(there - {source}))
    if targets:
        require_pairs([source], targets)
    strange = there & {HELD_OUT, *(target_of(shift) for shift in shifts)}
    if strange:
        problem = Problem("--dataset", f"a source called {', '.join(strange)}", "another name", "Rename it.")
        raise ConfigError("A source has the name of a target that is made.", [problem])
    plates = ingested(folders, labels, params, (source, *others))
    held = choose_held_out(loaded(plates).fields.table, source, hold_out)
    spec = HeldOutPlates(plates, source, held, tuple(dict.fromkeys(shifts)), pseudo_compounds)
    classes = len(loaded(spec).labels.classes)
    return Setting(
        dict.fromkeys(seeds, spec), (source,), (*spec.targets, *others), params, root, 1 / classes, simulated=False
    )


def real(
    setting: Setting, out: Path, *, processes: int = 1, report: EventCallback | None = None, unseen: float = 0.0
) -> Result:
    """Run every system on every target and write the page.

    Args:
        setting: From `real_setting`.
        out: Folder of the report.
        processes: Jobs at the same time.
        report: Called with every event of a job.
        unseen: Share of each mechanism's compounds that are kept from every head; they have tables of their own.
    """
    spec = next(iter(setting.data.values()))
    if not isinstance(spec, HeldOutPlates):
        raise TypeError(f"{type(spec).__name__} has no held-out plates")
    systems, (source,) = list(SYSTEMS), setting.sources
    data = loaded(spec)
    examples = _examples(spec)
    facts = {"Held out": ", ".join(spec.held_out), **described(data.fields.table, data.labels)}
    outcomes, scores = run_table(setting, systems, out, processes=processes, report=report, unseen=unseen)
    summary = summarise(scores)
    rows = present(summary[summary["source"] == source], systems, tuple(WAY_WORDS))
    tables: list[ReportTable] = [
        gain_table(gains_over_aligned(outcomes, setting.root, data.labels, unseen), rows, setting.targets),
        *matrices(summary, source, setting, rows, "real"),
        recall_table(summary, source, rows),
        long_table(scores, "real_scores", "All scores"),
    ]
    said = [
        *NOTES,
        *([PSEUDO] if any("~" in name for name in data.labels.compounds) else []),
        *notes(setting, outcomes),
    ]
    page = write_report(
        out, "Your own plates: which method pays", tables, [examples], said, facts=facts | setting.facts(outcomes),
        lead=setting.lead("Eight systems and the classical profile"),
    )  # fmt: skip
    return Result(scores, page, outcomes)


def _examples(spec: HeldOutPlates) -> ReportPicture:
    """Return one field on every made target: what the shifts look like, for people to judge."""
    held = loaded(spec).of(HELD_OUT)
    names = held.table["image_id"].tolist()
    one = names.index(sorted(names)[len(names) // 2])
    as_it_is = held.take(np.array([one])).images
    seen = [as_it_is, *(seen_through(as_it_is, [names[one]], shift) for shift in spec.shifts)]
    stains = held.channels
    figure = canvas(1.6 * len(stains) + 0.8, 1.6 * len(spec.targets))
    axes = figure.subplots(len(spec.targets), len(stains), squeeze=False)
    for row, target, (field,) in zip(axes, spec.targets, seen, strict=True):
        for axis, stain, image in zip(row, stains, field, strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=255)
            axis.set_xticks([])
            axis.set_yticks([])
            if row is axes[0]:
                axis.set_title(stain)
        row[0].set_ylabel(target.replace(", ", "\n"), fontsize=7)
    return ReportPicture(
        "examples", "One field on every target that was made", figure,
        "The same field as it is and behind each simulated microscope, one stain a column.",
        f"Image {names[one]}, stored grey levels from 0 to 255.",
    )  # fmt: skip


__all__ = ["as_json", "real", "real_setting"]
