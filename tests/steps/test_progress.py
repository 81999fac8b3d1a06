"""What a person sees while a step learns: rate, time left, and the share of the machine that is put to use."""

import pytest

from coda.config import changed
from coda.steps import progress_bar as progress
from coda.training.matrix_rate import MatrixRate
from coda.training.progress import Clock, Progress


@pytest.fixture
def measured(monkeypatch):
    """The machine multiplies matrices at 200 GFLOP/s; how often it was asked."""
    asked = []

    def measure(device, dtype, *, seconds):
        asked.append((device.type, str(dtype)))
        return MatrixRate(2e11, str(dtype), device.type, 1, 1024)

    monkeypatch.setattr(progress, "measure_matrix_rate", measure)
    return asked


def lines(demo_params, capsys, reports):
    with progress.shown("Pretraining", demo_params.compute) as report:
        for item in reports:
            report(item)
    return capsys.readouterr().err.splitlines()


def test_a_long_training_says_which_share_of_the_matrix_rate_it_uses(demo_params, capsys, measured):
    demo_params = changed(demo_params, {"compute.precision": "bfloat16"})
    reports = [Progress(done, 100, 50.0, 300.0 - done, f"loss {done}", flops_per_s=5e10) for done in (5, 10, 15, 20)]
    said = lines(demo_params, capsys, reports)
    assert said == [
        "Pretraining: 10/100, 50 samples/s (25% of the matrix rate), 290 s left, loss 10",
        "Pretraining: 20/100, 50 samples/s (25% of the matrix rate), 280 s left, loss 20",
    ]
    assert measured == [("cpu", "torch.bfloat16")], "once, in the precision of the training"


@pytest.mark.parametrize(("left", "work"), [(20.0, 5e10), (300.0, 0.0)])
def test_a_short_training_and_uncounted_work_say_nothing_of_it(demo_params, capsys, measured, left, work):
    said = lines(demo_params, capsys, [Progress(50, 100, 50.0, left, "loss 1", flops_per_s=work)])
    assert said == [f"Pretraining: 50/100, 50 samples/s, {left:.0f} s left, loss 1"]
    assert measured == []


def test_work_is_samples_times_the_work_of_one():
    clock = Clock(10, 20, batch_size=4, flops_per_sample=1e9)
    report = clock.progress(15, "")
    assert report.flops_per_s == pytest.approx(report.samples_per_s * 1e9)
    assert report.remaining_s == pytest.approx(5 / (report.samples_per_s / 4))


def test_speed_over_time_is_of_what_was_done_since_the_last_look(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("coda.training.progress.time.perf_counter", lambda: now[0])
    clock = Clock(10, 40, batch_size=4)
    now[0] += 2.0
    assert clock.since_last(20) == {"iteration": 19.0, "samples_per_s": pytest.approx(10 * 4 / 2.0)}
    now[0] += 10.0  # it was held up
    assert clock.since_last(30) == {"iteration": 29.0, "samples_per_s": pytest.approx(4.0)}
    assert clock.progress(30, "").samples_per_s == pytest.approx(20 * 4 / 12.0), "the mean is since the start"
