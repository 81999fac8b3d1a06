"""Table 3 of the paper: which self-supervision adapts, DINO or a masked autoencoder."""

from pathlib import Path

from coda.benchmark.benchmark_report import write_report
from coda.benchmark.jobs import EventCallback
from coda.benchmark.orderings import TABLE_3, ordering_table
from coda.benchmark.paper import SHORT, table_3
from coda.benchmark.score_tables import long_table, reference_table, summary_table
from coda.benchmark.setting import Setting
from coda.benchmark.systems import summarise
from coda.benchmark.table2 import Result, by_source, notes, run_table

SYSTEMS = ("Dual-model-MAE", "Dual-model-DINO", "ODA-MAE", "ODA")


def table3(setting: Setting, out: Path, *, processes: int = 1, report: EventCallback | None = None) -> Result:
    """Train and evaluate the four systems of the table and write it; arguments as for `table2`."""
    outcomes, scores = run_table(setting, SYSTEMS, out, processes=processes, report=report)
    summary = summarise(scores)
    tables, pictures = by_source(
        scores, setting, SYSTEMS, "table3",
        alt="Accuracy of DINO and MAE trained on {}, with and without adaptation.", caption="Dots are seeds.",
    )  # fmt: skip
    tables.append(ordering_table(scores, TABLE_3))
    if not any(source in SHORT or source in SHORT.values() for source in setting.sources):
        title = "For reference: the paper's table 3, trained on S3 (JUMP plates)"
        tables.append(reference_table(table_3(), "paper_table3", title, "source_3"))
    tables += [summary_table(summary, "table3_summary", "All means"), long_table(scores, "table3_scores", "All scores")]
    page = write_report(
        out, "Table 3: DINO against a masked autoencoder", tables, pictures, notes(setting, outcomes),
        facts=setting.facts(outcomes), lead=setting.lead("Two kinds of self-supervision"),
    )  # fmt: skip
    return Result(scores, page, outcomes)
