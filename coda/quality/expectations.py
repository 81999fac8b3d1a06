"""Running a suite through Great Expectations, and reading what it says.

Great Expectations is imported inside `run_suite` alone: it takes seconds. Its telemetry is switched off before that,
its progress bars too. Each table is one data frame asset with one suite of its own, so that its Data Docs show one
page a table; everything lives in an ephemeral context whose only lasting trace is the folder of Data Docs.
"""

import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from coda.errors import ConfigError, Problem, raise_if_any
from coda.quality.suite import Expectation, Suite

ROW = "row"
"""Column that numbers the rows of every table, so that a failure leads back to its row."""


@dataclass(frozen=True)
class Outcome:
    """What became of one expectation.

    Attributes:
        expectation: The expectation of the suite.
        passed: Whether Great Expectations found it met.
        rows: Rows of the table that broke it; empty for expectations about the table as a whole.
        observed: What was measured, for expectations about the table as a whole; else ''.
        crash: Why it could not be evaluated; '' when it was.
    """

    expectation: Expectation
    passed: bool
    rows: pd.DataFrame
    observed: str = ""
    crash: str = ""


def run_suite(
    suite: Suite,
    tables: Mapping[str, pd.DataFrame],
    parameters: Mapping[str, float],
    *,
    docs: Path,
    run_name: str,
    run_time: datetime,
) -> list[Outcome]:
    """Evaluate all expectations of a suite and write its Data Docs.

    Args:
        suite: The suite.
        tables: Table name -> table, for every table the suite names.
        parameters: Values for ``{$PARAMETER: name}`` in the arguments.
        docs: Folder of the Data Docs (static HTML); replaced.
        run_name: Name of this validation in the Data Docs: the batch.
        run_time: Time it carries there: the manifest's, so that a repetition writes the same pages.

    Returns:
        One outcome an expectation, in the order of the suite.

    Raises:
        ConfigError: An expectation is unknown to Great Expectations, or its arguments do not fit it; all of them.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with warnings.catch_warnings():
        # its own imports use names that newer Pythons and pandas deprecate; nothing we could change
        warnings.simplefilter("ignore")
        import great_expectations as gx
        from great_expectations.core.run_identifier import RunIdentifier

        context = _quiet_context(gx, docs)
        source = context.data_sources.add_pandas("coda")
        configured = _configured(suite)
        run = RunIdentifier(run_name=run_name, run_time=run_time)
        raw: dict[str, dict[str, Any]] = {}
        frames: dict[str, pd.DataFrame] = {}
        for name in dict.fromkeys(item.table for item in suite.expectations):
            frames[name] = tables[name].reset_index(drop=True).assign(**{ROW: range(len(tables[name]))})
            title = f"{suite.name}-v{suite.version}.{name}"
            expectations = [configured[item.name] for item in suite.expectations if item.table == name]
            gx_suite = context.suites.add(gx.ExpectationSuite(name=title, expectations=expectations))
            batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("whole")
            definition = gx.ValidationDefinition(name=title, data=batch, suite=gx_suite)
            result = context.validation_definitions.add(definition).run(
                batch_parameters={"dataframe": frames[name]},
                expectation_parameters=dict(parameters),
                result_format={"result_format": "COMPLETE", "unexpected_index_column_names": [ROW]},
                run_id=run,
            )
            raw |= {item["expectation_config"]["meta"]["name"]: item for item in result.to_json_dict()["results"]}
        context.build_data_docs()
    for tutorial in docs.glob("static/images/*.gif"):
        tutorial.unlink()  # three megabytes of tutorial in every batch
    return [_outcome(item, raw[item.name], frames[item.table]) for item in suite.expectations]


def _quiet_context(gx: Any, docs: Path) -> Any:
    from great_expectations.data_context.types.base import ProgressBarsConfig

    shutil.rmtree(docs, ignore_errors=True)
    docs.mkdir(parents=True)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    for name in list(context.variables.data_docs_sites or {}):
        context.delete_data_docs_site(name)
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())}
    index = {"class_name": "DefaultSiteIndexBuilder"}
    site = {"class_name": "SiteBuilder", "store_backend": store, "site_index_builder": index}
    context.add_data_docs_site(site_name="batch", site_config=site)
    return context


def _configured(suite: Suite) -> dict[str, Any]:
    """Return Great Expectations' own objects by name, or all reasons why there are none."""
    from great_expectations.exceptions.exceptions import GreatExpectationsError
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
    from great_expectations.expectations.metadata_types import FailureSeverity

    objects: dict[str, Any] = {}
    problems: list[Problem] = []
    for item in suite.expectations:
        configuration = ExpectationConfiguration(
            type=item.expect,
            kwargs=dict(item.arguments),
            meta={"name": item.name, "notes": {"format": "markdown", "content": [item.reason, item.remedy]}},
            description=f"{item.name.replace('_', ' ')}: {item.reason}",
            severity=FailureSeverity(item.severity),
        )
        try:
            objects[item.name] = configuration.to_domain_obj()
        except (GreatExpectationsError, ValueError, TypeError) as error:
            found = f"{item.expect} with {item.arguments}: {' '.join(str(error).split())[:300]}"
            expected = "an expectation of Great Expectations with arguments it knows"
            problems.append(Problem(f"{suite.name}: {item.name}", found, expected, "Correct the suite file."))
    raise_if_any(ConfigError, f"The expectation suite {suite.title} cannot be used.", problems)
    return objects


def _outcome(item: Expectation, result: Mapping[str, Any], table: pd.DataFrame) -> Outcome:
    crashes = list(_crashes(result.get("exception_info")))
    if crashes:
        return Outcome(item, passed=False, rows=table.iloc[:0], crash=crashes[0])
    details = result.get("result") or {}
    places = sorted({entry[ROW] for entry in details.get("unexpected_index_list") or [] if ROW in entry})
    observed = details.get("observed_value")
    return Outcome(
        item,
        passed=bool(result["success"]),
        rows=table.iloc[places].drop(columns=ROW),
        observed="" if observed is None else _short(observed),
    )


def _crashes(info: Any) -> Iterator[str]:
    """Walk both shapes of exception_info (flat, or one entry a metric) and return the messages of raised exceptions."""
    if not isinstance(info, dict):
        return
    if info.get("raised_exception") is True:
        yield " ".join(str(info.get("exception_message") or "an exception without a message").split())[:300]
    for value in info.values():
        yield from _crashes(value)


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 300 else text[:297] + "..."
