"""Views of the table of batches: one row a batch, one series of a measure, one value a plate."""

import pandas as pd

from coda.monitoring.batch_row import FACTS

KEY = ["source", "batch", "manifest_digest"]
"""What names one batch version in the table."""


def batches_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row a batch version, oldest first: its facts, and the numbers that a list shows of it.

    Returns:
        `Facts`, and the columns `plates`, `fields` (accepted), `quarantined` (share) and `gain` (of the chosen way of
        predicting over the baseline), NaN where the batch has no such number.
    """
    facts = frame.drop_duplicates(KEY)[list(FACTS)].reset_index(drop=True)
    for name in facts.columns.difference(["processed_at", "acquired_at", "seconds"]):
        facts[name] = facts[name].astype(str)
    for name, measure in (("plates", "plates"), ("fields", "fields_accepted"), ("quarantined", "quarantined_share")):
        facts = facts.merge(_of_batches(frame, measure, name), on=KEY, how="left")
    chosen = frame[frame["measure"] == "gate_chosen"][[*KEY, "subject"]]
    gains = frame[frame["measure"] == "gate_gain"][[*KEY, "subject", "value"]].rename(columns={"value": "gain"})
    return facts.merge(gains.merge(chosen, on=[*KEY, "subject"]).drop(columns="subject"), on=KEY, how="left")


def _of_batches(frame: pd.DataFrame, measure: str, name: str) -> pd.DataFrame:
    found = frame[(frame["measure"] == measure) & (frame["plate"] == "")]
    return found[[*KEY, "value"]].rename(columns={"value": name})
