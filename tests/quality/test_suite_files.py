"""Suite files: the shipped one fits the tables it looks at, and a broken one says where."""

from collections.abc import Callable
from pathlib import Path
from string import Template

import pandas as pd
import pytest
import yaml

from coda.config import Params
from coda.config.params import Quality
from coda.contracts.ingest import ContractProblem
from coda.errors import ConfigError
from coda.quality.batch_quality import read_batch
from coda.quality.earlier_plates import COLUMNS as HISTORY_COLUMNS
from coda.quality.expected_tables import batch_table, plate_table, problem_table, stain_table
from coda.quality.suite import SUITES, load_suite

SHIPPED = sorted(path.stem for path in SUITES.glob("*.yaml"))


@pytest.fixture
def columns(make_batch: Callable, tmp_path: Path) -> dict[str, set[str]]:
    batch = make_batch()
    batch.problems = [ContractProblem(where="a", found="b", expected="c", remedy="d")]
    data = read_batch(batch.write(tmp_path))
    tables: dict[str, pd.DataFrame] = {
        "fields": data.index, "wells": data.wells, "plates": plate_table(data), "stains": stain_table(data),
        "batch": batch_table(data, 0), "problems": problem_table(data.ingest),
    }  # fmt: skip
    return {name: set(table.columns) for name, table in tables.items()} | {"history": set(HISTORY_COLUMNS)}


def test_there_is_a_shipped_suite() -> None:
    assert {"cell-painting-v1", "cell-painting-v2", "cell-painting-v3", "cell-painting-v4"} <= set(
        SHIPPED
    )  # an old report can be made again


@pytest.mark.parametrize("name", SHIPPED)
def test_every_column_and_parameter_that_a_shipped_suite_names_exists(
    name: str, columns: dict[str, set[str]], demo_params: Params
) -> None:
    parameters = set(demo_params.quality.model_dump())
    for item in load_suite(name).expectations:
        known = columns[item.table]
        used = {
            item.arguments.get("column"),
            *item.arguments.get("column_list", []),
            *item.arguments.get("column_set", []),
        }
        assert used - {None} <= known, item.name
        words = {key for text in (item.found, item.expected, item.remedy) for key in Template(text).get_identifiers()}
        assert words <= known | parameters | {"observed"}, item.name
        wanted = {value["$PARAMETER"] for value in item.arguments.values() if isinstance(value, dict)}
        assert wanted <= parameters, item.name


@pytest.mark.parametrize("name", SHIPPED)
def test_file_name_tells_name_and_version(name: str) -> None:
    suite = load_suite(name)
    assert name == f"{suite.name}-v{suite.version}"
    assert {item.group for item in suite.expectations} == {"contract", "plate", "history"}


def broken(change: Callable[[dict], object], tmp_path: Path) -> str:
    content = yaml.safe_load((SUITES / "cell-painting-v3.yaml").read_text(encoding="utf-8"))
    change(content)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_suite(str(path))
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["expectations"][3].update(severity="fatal"), ["expectations.3.severity", "fatal", "critical"]),
        (lambda c: c["expectations"][0].pop("remedy"), ["expectations.0.remedy", "nothing"]),
        (lambda c: c.update(extra=1), ["extra"]),
        (lambda c: c["expectations"].append(c["expectations"][0]), ["delivery_keeps_its_contract", "more than once"]),
        (lambda c: c["expectations"][0].update(found="costs 5 $ a plate"), ["delivery_keeps_its_contract", "$"]),
        (lambda c: c["history"].update(min_relative_mad=-1.0), ["history.min_relative_mad"]),
    ],
)
def test_a_broken_suite_says_where(change: Callable[[dict], object], said: list[str], tmp_path: Path) -> None:
    text = broken(change, tmp_path)
    assert all(part in text for part in said), text


def test_unknown_names_and_broken_yaml_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cell-painting-v3"):
        load_suite("no-such-suite")
    path = tmp_path / "bad.yaml"
    path.write_text("name: [", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_suite(str(path))


@pytest.mark.parametrize("name", ["cell-painting-v1", "cell-painting-v2", "cell-painting-v3", "cell-painting-v4"])
def test_what_is_expected_names_parameters_alone_for_there_is_no_row_where_nothing_failed(name):
    known = set(Quality.model_fields)
    for item in load_suite(name).expectations:
        assert set(Template(item.expected).get_identifiers()) <= known, item.name
