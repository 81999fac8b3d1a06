"""`coda quality show`: what a person sees."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coda.cli.quality import app
from coda.contracts.quality import Check, QualityReport, QuarantinedField
from coda.errors import ContractError


def report_with(*checks: Check, **changes: object) -> QualityReport:
    values = {
        "source": "lab_x", "batch": "b1", "manifest_digest": "0" * 64, "suite_version": "cell-painting version 1",
        "verdict": "refused", "sentence": "Batch lab_x/b1 was refused: 1 of 1 plates cannot be used.",
        "fields_expected": 48, "fields_accepted": 0, "plates_refused": ("p1",), "checks": checks,
    }  # fmt: skip
    return QualityReport(**(values | changes))


def check(severity: str, *, passed: bool, name: str = "cells_are_there") -> Check:
    return Check(
        name=name, group="plate", severity=severity, passed=passed, where="plate p1", observed="[0] nuclei",
        expected="2 nuclei", reason="No cells.", remedy="Look at the plate.",
    )  # fmt: skip


def shown(path: Path, *options: str) -> str:
    result = CliRunner().invoke(app, ["show", str(path), "--width", "200", *options])
    assert result.exit_code == 0, result.output
    return result.output


def test_reasons_and_remedies_are_printed_gravest_first(tmp_path: Path) -> None:
    report = report_with(
        check("warning", passed=False, name="later"), check("critical", passed=False), check("info", passed=True)
    )
    report.write(tmp_path / "quality.json")
    text = shown(tmp_path)
    assert text.startswith("Batch lab_x/b1 was refused")
    assert text.index("critical") < text.index("warning")
    assert "[0] nuclei" in text
    assert "Look at the plate." in text
    assert "passed" not in text
    assert "passed" in shown(tmp_path / "quality.json", "--all")


def test_set_aside_fields_are_listed(tmp_path: Path) -> None:
    item = QuarantinedField(plate="p1", well="B03", site=2, channel="ER", reason="The file ends too early.")
    report_with(quarantined=(item,), verdict="accepted").write(tmp_path / "quality.json")
    text = shown(tmp_path)
    assert "B03" in text
    assert "The file ends too early." in text


def test_a_batch_without_a_verdict_says_what_to_run(tmp_path: Path, make_batch: Callable) -> None:
    result = CliRunner().invoke(app, ["show", str(make_batch().write(tmp_path))])
    assert isinstance(result.exception, ContractError)
    assert "coda step validate" in str(result.exception)
    with pytest.raises(ContractError):
        raise result.exception
