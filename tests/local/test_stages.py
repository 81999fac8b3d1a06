"""Stages are done once, remembered, and repeated only when they did not finish."""

import io
from concurrent.futures import ThreadPoolExecutor

import pytest
from rich.console import Console

from coda.errors import ConfigError
from coda.local.stages import Stages


def open_stages(folder, fingerprint="f"):
    return Stages(folder, fingerprint, Console(file=io.StringIO()))


def test_a_finished_stage_is_not_repeated(tmp_path):
    calls = []
    for _ in range(2):
        stages = open_stages(tmp_path)
        assert stages.run("one", "One ...", lambda: calls.append(1) or {"n": 1}) == {"n": 1}
    assert calls == [1]
    assert [stage["name"] for stage in stages.seconds()] == ["one"]


def test_a_stage_that_failed_is_repeated(tmp_path):
    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_stages(tmp_path).run("one", "One ...", fail)
    assert open_stages(tmp_path).run("one", "One ...", lambda: 2) == 2


def test_results_of_other_parameters_are_not_taken_over(tmp_path):
    open_stages(tmp_path, "f").run("one", "One ...", lambda: 1)
    with pytest.raises(ConfigError, match="make clean"):
        open_stages(tmp_path, "g")


def test_stages_of_several_threads_are_all_remembered(tmp_path):
    stages = open_stages(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: stages.note(f"stage {number}", 1.0, {"n": number}), range(40)))
    again = open_stages(tmp_path)
    assert [again.result(f"stage {number}")["n"] for number in range(40)] == list(range(40))
