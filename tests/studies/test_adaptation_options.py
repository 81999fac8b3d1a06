"""Every option runs from end to end, does something, and its gain is that of the same seed and plates."""

import numpy as np
import pytest

from coda.benchmark.table2 import as_json
from coda.config import changed
from coda.errors import ConfigError
from studies.adaptation_options import BASELINE, effects, lay_out, options, options_of, run_options


@pytest.fixture(scope="module")
def result(setting, tmp_path_factory):
    return run_options(setting, tmp_path_factory.mktemp("options"))


def image(scores):
    return scores[(scores["level"] == "image") & (scores["metric"] == "accuracy")]


def test_every_option_has_scores_on_raw_and_aligned_tokens(result, setting):
    assert all(outcome.result is not None for outcome in result.outcomes), [o.cause for o in result.outcomes]
    found = image(result.scores)
    found = found[found["target"] == "lab_b"]
    for option in options_of(setting):
        own = found[found["system"] == f"{option.group}: {option.label}"]
        assert len(own) == 3 * len(setting.seeds), option.label


def test_gains_are_differences_of_the_same_seed_by_hand(result, setting):
    found = image(result.scores)
    chosen = options_of(setting)
    table = effects(result.scores, chosen, "coral", setting)
    rows = {row["option"]: row for row in table.values.to_dict("records")}
    one = found[(found["alignment"] == "coral") & (found["target"] == "lab_b")].set_index(["system", "seed"])["value"]
    for option in chosen:
        name = f"{option.group}: {option.label}"
        base = "Starting points: " + (BASELINE if option.model == "cb" else "ODA's model, no adaptation")
        gains = [one[name, seed] - one[base, seed] for seed in setting.seeds]
        assert rows[name]["gain"] == pytest.approx(np.mean(gains))
        assert rows[name]["better"] == sum(gain > 0 for gain in gains)
    assert (result.page.parent / "options_coral.csv").is_file()
    assert as_json(result, setting)["failed"] == []


def test_options_differ_from_each_other_and_are_all_valid(setting):
    chosen = options_of(setting)
    jobs = [job for job in lay_out(setting, chosen) if job.after]
    assert len({job.digest for job in jobs}) == len(jobs)
    left_out = {option.label for option in options(48, 1e-3, 1)} - {option.label for option in chosen}
    assert left_out == {"frozen"}, "what the parameters have on already is the row CODA"
    assert len({job.name for job in jobs}) == len(jobs)
    assert len({option.label for option in options(48, 1e-3, 1)}) == len(options(48, 1e-3, 1))


def test_changed_parameters_are_checked_as_a_whole(short):
    other = changed(short, {"adaptation.trainable": "norms", "adaptation.budget.ema_start": 0.9})
    assert (other.adaptation.trainable, other.adaptation.budget.ema_start) == ("norms", 0.9)
    assert short.adaptation.trainable == "all"
    assert changed(short, {}) == short
    with pytest.raises(ConfigError, match="did you mean 'trainable'"):
        changed(short, {"adaptation.trainabel": "norms"})
    with pytest.raises(ConfigError, match=r"crops\.global_size"):
        changed(short, {"crops.global_size": 64})
    with pytest.raises(ConfigError, match=r"adaptation\.budget\.ema_start"):
        changed(short, {"adaptation.budget.ema_start": 2})
