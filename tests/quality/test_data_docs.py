"""Data Docs say of every expectation what the quality report says: read back from the pages as a person sees them."""

import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
import yaml

from coda.config import Params
from coda.contracts import QualityReport
from coda.quality.suite import SUITES, load_suite
from coda.settings import Settings
from coda.steps.validate import validate

ROW = re.compile(r"<tr>(.*?)</tr>", re.DOTALL)
ICON = re.compile(r'<i class="[^"]*\b(text-success|text-danger|text-warning)"')
ADDED = {"enough_plates_are_left", "refused_before"}
"""Checks that the report adds to those of the suite."""


def pages(docs: Path) -> dict[str, str]:
    """Return the page of each table's validation, by the name of the table."""
    found = docs.glob("validations/**/*.html")
    return {page.parent.parent.parent.name.rsplit(".", 1)[-1]: page.read_text(encoding="utf-8") for page in found}


def said(page: str) -> dict[str, bool]:
    """Return what a page says of each expectation: its name, and whether its sign is that of success."""
    verdicts = {}
    for row in ROW.findall(page):
        icon = ICON.search(row)
        text = unescape(re.sub(r"<[^>]*>", " ", row))
        name = re.search(r"([a-z][a-z0-9 ]{2,59}): ", text)
        if icon is not None and name is not None:
            verdicts[name.group(1).strip().replace(" ", "_")] = icon.group(1) == "text-success"
    return verdicts


def counted(page: str, label: str) -> int:
    text = " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split())
    found = re.search(rf"\b{label} (\d+)", text)
    assert found is not None, label
    return int(found.group(1))


@pytest.fixture
def suite_file(tmp_path: Path) -> Callable[..., str]:
    """Write a laboratory's own copy of the shipped suite, with changes by name of expectation."""

    def write(**changes: dict) -> str:
        content = yaml.safe_load((SUITES / "cell-painting-v3.yaml").read_text(encoding="utf-8"))
        content |= {"name": "our-own", "version": 7}
        for item in content["expectations"]:
            item.update(changes.get(item["name"], {}))
        path = tmp_path / "our-own-v7.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def judge(
    make_batch: Callable, tmp_path: Path, demo_params: Params, settings: Settings
) -> Callable[..., tuple[QualityReport, dict[str, str]]]:
    def go(suite: str, change: Callable) -> tuple[QualityReport, dict[str, str]]:
        for number in range(3):
            make_batch(batch=f"a{number}", seed=number).write(tmp_path / "history")
        batch = make_batch(batch="b1", plates=("p1", "p2", "p3"))
        change(batch)
        batch.write(tmp_path / "ds")
        flags = tmp_path / "flags.csv"
        flags.write_text("Metadata_Source,Metadata_Plate,flag\nlab_x,p3,gray\n")
        quality = demo_params.quality.model_copy(update={"suite": suite, "red_flags": str(flags)})
        params = demo_params.model_copy(update={"quality": quality})
        (report,) = validate(tmp_path / "ds", params=params, settings=settings, history=tmp_path / "history")
        return report, pages(tmp_path / "ds/lab_x/b1/data_docs")

    return go


def broken(batch: object) -> None:
    """A critical fault of the plate, warnings of stain and plate, and a statistic far from history."""
    controls = batch.field_rows("p1") & ~batch.index["Metadata_Well"].isin(["A01", "A02"])
    batch.index.loc[controls, "Metadata_pert_type"] = "trt"
    batch.change("QC_saturation_ER", 0.03, "p2")
    batch.change("QC_p95_Mito", 9000.0, "p2")
    batch.index = batch.index[~(batch.field_rows("p2") & (batch.index["Metadata_Well"] == "D06"))]


def test_pages_and_report_agree_on_every_expectation(judge: Callable) -> None:
    report, found = judge("cell-painting-v3", broken)
    suite = load_suite("cell-painting-v3")
    in_report: dict[str, bool] = {}
    for check in report.checks:
        if check.name not in ADDED:
            in_report[check.name] = in_report.get(check.name, True) and check.passed
    verdicts: dict[str, bool] = {}
    for page in found.values():
        verdicts |= said(page)
    assert verdicts == in_report
    assert set(verdicts) == {item.name for item in suite.expectations}
    failed = {name for name, passed in verdicts.items() if not passed}
    assert {
        "negative_controls_are_there", "few_pictures_are_saturated", "plates_are_like_earlier_ones",
        "wells_are_all_there", "plates_are_not_doubted",
    } <= failed  # fmt: skip
    table_of = {item.name: item.table for item in suite.expectations}
    for table, page in found.items():
        names = {name for name, its in table_of.items() if its == table}
        assert counted(page, "Evaluated Expectations") == len(names)
        assert counted(page, "Unsuccessful Expectations") == len(failed & names), table


def test_a_rule_that_could_not_be_looked_at_is_no_success_on_the_page_either(
    judge: Callable, suite_file: Callable
) -> None:
    own = suite_file(edge_wells_are_like_the_others={"arguments": {"column": "no_such_column", "max_value": 3}})
    report, found = judge(own, lambda _: None)
    assert report.refused
    assert report.suite_version == "our-own version 7"
    assert said(found["plates"])["edge_wells_are_like_the_others"] is False
    assert said(found["plates"])["negative_controls_are_there"] is True


def test_a_laboratory_loosens_its_own_copy_and_the_report_names_it(judge: Callable, suite_file: Callable) -> None:
    own = suite_file(
        few_pictures_are_saturated={"arguments": {"column": "saturation_p90", "max_value": 0.04}},
        plates_are_not_doubted={"severity": "critical"},
    )
    report, found = judge(own, lambda batch: batch.change("QC_saturation_ER", 0.03, "p2"))
    assert report.plates_refused == ("p3",), "this laboratory refuses what the list has doubts about"
    assert said(found["stains"])["few_pictures_are_saturated"] is True
    assert report.suite_version == "our-own version 7"
    assert Path(own).read_text(encoding="utf-8").count("saturation_p90") == 2
