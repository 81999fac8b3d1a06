"""The stop watch: who runs when, what is counted, and what the tables make of it. No time is asserted."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from typer.testing import CliRunner

from benchmarks.speed.baseline_loop import write_pngs
from benchmarks.speed.contest import Compared, CustomaryFeed, CustomaryStep, compare
from benchmarks.speed.contest_processes import Remote, Together
from benchmarks.speed.throughput import ScaleReport, SpeedReport
from benchmarks.speed.throughput_options import read_scales
from benchmarks.speed.throughput_tables import as_json, machine_facts, speed_tables, write_speed_report
from coda.benchmark.contestants import OurFeed, OurStep
from coda.benchmark.machine import Machine
from coda.cli.benchmark import app
from coda.errors import ConfigError, TransientError
from coda.training.matrix_rate import MatrixRate


class Fake:
    """A contestant whose time is made up."""

    least, samples = 2, 10

    def __init__(self, name, seconds, calls):
        self.name, self.seconds, self.calls = name, seconds, calls

    def run(self, iterations):
        self.calls.append((self.name, iterations))
        return self.seconds * iterations


def report(**changes):
    loop = Compared((10.0, 12.0, 11.0), (30.0, 33.0, 36.0))
    feed = Compared((100.0, 100.0), (2000.0, 1800.0))
    rate = MatrixRate(2e12, "bfloat16", "cpu", 2, 1024)
    options = {"peak_bytes": {"customary": 3 * 2**30, "ours": 2**30}, **changes}
    scale = ScaleReport("demo", "small", "bfloat16", 8, 2e10, loop, feed, rate, **options)
    return SpeedReport(Machine("a processor", 2, 2, 0.1, None, "2.0"), (rate,), (scale,))


def test_turns_alternate_and_the_first_run_does_not_count():
    calls = []
    found = compare(Fake("A", 0.5, calls), Fake("B", 0.1, calls), turns=3, seconds=4.0, told=lambda words: None)
    assert calls == [("A", 2), ("B", 2), *[("A", 8), ("B", 40)] * 3]
    assert found.customary == pytest.approx([20.0] * 3)
    assert found.ours == pytest.approx([100.0] * 3)
    assert found.ratio == pytest.approx(5.0)


def test_a_short_turn_still_has_the_least_iterations():
    calls = []
    compare(Fake("A", 5.0, calls), Fake("B", 5.0, calls), turns=1, seconds=0.1, told=lambda words: None)
    assert calls[2:] == [("A", 2), ("B", 2)]


def test_the_ratio_s_interval_is_student_s_on_logarithms():
    rng = np.random.default_rng(0)
    ours, customary = rng.uniform(20, 40, 6), rng.uniform(8, 12, 6)
    found = Compared(tuple(customary), tuple(ours))
    oracle = stats.ttest_1samp(np.log(ours) - np.log(customary), 0).confidence_interval(0.95)
    assert found.interval() == pytest.approx((math.exp(oracle.low), math.exp(oracle.high)))
    assert found.ratio == pytest.approx(stats.gmean(ours / customary))
    assert Compared((1.0,), (2.0,)).interval() == (0.0, math.inf)


def test_both_ways_train_and_feed_on_the_same_fields(fields, tiny, tmp_path):
    params = tiny()
    paths = write_pngs(fields, tmp_path)
    ours = OurStep(fields, params)
    customary = CustomaryStep(paths, fields, params, torch.device("cpu"))
    before = [p.detach().clone() for p in ours.objective.state.teacher.parameters()]
    assert all(way.run(2) > 0 for way in (ours, customary, OurFeed(fields, params)))
    assert CustomaryFeed(paths, fields, params).run(3) > 0
    after = list(ours.objective.state.teacher.parameters())
    assert any(not torch.equal(one, two) for one, two in zip(before, after, strict=True))
    assert {way.samples for way in (ours, customary)} == {params.pretrain.batch_size}


def test_a_process_of_its_own_tells_times_and_memory_and_ends(fields, tiny):
    remote = Remote("ours", fields, tiny(), threads=1)
    assert remote.run(1) > 0
    assert 50e6 < remote.peak_bytes() < 50e9
    remote.end()
    assert remote._process.exitcode == 0


def test_a_process_that_died_is_told(fields, tiny):
    bad = tiny().model_copy(update={"crops": tiny().crops.model_copy(update={"global_size": 320})})
    with pytest.raises(TransientError, match="process died"):
        Remote("ours", fields, bad, threads=1)


def test_side_by_side_the_slowest_counts():
    calls = []
    pair = Together([Fake("A", 0.5, calls), Fake("B", 0.7, calls)])
    assert (pair.samples, pair.least) == (20, 2)
    assert pair.run(3) == pytest.approx(2.1)
    assert sorted(calls) == [("A", 3), ("B", 3)]


def test_utilisation_and_share_of_the_views_by_hand():
    (scale,) = report().scales
    assert scale.utilisation == pytest.approx(36 * 2e10 / 2e12)
    assert scale.feed_share == pytest.approx(36 / 2000)


def test_tables_hold_every_comparison_and_json_has_no_infinity(tmp_path):
    found = report(side_by_side=Compared((1.0,), (2.0,)))
    compared, machine, rates = (table.values for table in speed_tables(found))
    assert compared["what"].tolist() == ["training", "views alone", "side by side"]
    assert compared["B_over_A"][0] == pytest.approx(stats.gmean([3.0, 33 / 12, 36 / 11]))
    assert machine["ideal_samples_per_s"].tolist() == [100.0]
    assert rates["GFLOP_per_s"].tolist() == [2000.0]
    page = write_speed_report(tmp_path, found)
    assert "nothing here was measured on a GPU" in page.read_text()
    assert pd.read_csv(tmp_path / "speed.csv")["A"].tolist()[0] == "customary"
    content = as_json(found)
    assert content["scales"][0]["utilisation"] == pytest.approx(0.36)


def test_on_a_card_the_rate_it_is_told_of_stands_beside(tmp_path):
    found = report()
    found = replace(found, machine=replace(found.machine, gpu="NVIDIA H200"))
    assert machine_facts(found)["Told of a H200"] == "790 TFLOP/s in bfloat16"
    machine = speed_tables(found)[1].values
    assert machine["share_of_told_rate"][0] == pytest.approx(36 * 2e10 / 790e12)


def test_scales_are_the_demo_and_the_paper_s_network(root):
    found = read_scales(["demo", "deit-small", "demo"], root / "params.yaml", [], ["dino.prototypes=128"])
    assert list(found) == ["demo", "deit-small"]
    assert found["deit-small"].extractor.arch == "deit_small_patch16_224"
    assert found["deit-small"].crops.global_size == 224
    assert found["demo"].crops.global_size == 48
    assert all(params.dino.prototypes == 128 for params in found.values())
    with pytest.raises(ConfigError, match="no such scale"):
        read_scales(["huge"], root / "params.yaml", [], [])


def test_the_command_measures_writes_and_says_so(root, tmp_path):
    overlay = tmp_path / "tiny.yaml"
    overlay.write_text(
        "extractor: {overrides: {img_size: 16, patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2}}\n"
        "crops: {centre: 32, global_size: 16, local_size: 8}\n"
        "dino: {prototypes: 12, hidden_dim: 16, bottleneck_dim: 8}\n"
        "head: {depth: 1, num_heads: 2}\n"
        "pretrain: {batch_size: 4}\n"
        "compute: {threads: 1}\n"
    )
    arguments = ["speed", "--scale", "demo", "--turns", "1", "--seconds", "0.01", "--overlay", str(overlay)]
    arguments += ["--params", str(root / "params.yaml"), "--work", str(tmp_path / "work")]
    arguments += ["--out", str(tmp_path / "out"), "--json", str(tmp_path / "speed.json")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "training" in result.output
    content = json.loads((tmp_path / "speed.json").read_text())
    (scale,) = content["scales"]
    assert scale["name"] == "demo"
    assert scale["utilisation"] > 0
    assert scale["comparisons"][0]["high"] is None  # one turn has no interval
    assert (tmp_path / "out" / "report.html").is_file()
    assert {rate["dtype"] for rate in content["rates"]} == {"float32", "bfloat16"}
