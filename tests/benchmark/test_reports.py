"""Reports: every file is there, the page needs nothing else, and what is marked is the best."""

import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from matplotlib.figure import Figure

from coda.benchmark.benchmark_report import ReportPicture, ReportTable, plain, write_report
from coda.benchmark.orderings import TABLE_2, ordering_table, ratio_table
from coda.benchmark.paper import table_2
from coda.benchmark.score_tables import score_matrix
from coda.benchmark.setting import CHOSEN, DEVELOPMENT, REPORTING, what_seeds_carry
from coda.benchmark.systems import summarise


class Links(HTMLParser):
    """Collects what a browser would fetch, and checks that every element is closed."""

    VOID = ("meta", "img", "link", "br", "hr", "input")

    def __init__(self):
        super().__init__()
        self.found, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data", "poster")]
        assert tag not in ("script", "link", "iframe", "object")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def write(folder, **changes):
    values = pd.DataFrame({"system": ["A <b>", "B"], "lab_b": [0.123456789, float("nan")]})
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1])
    return write_report(
        folder, "A title", [ReportTable("one", "First", values, best=frozenset({(0, 1)}))],
        [ReportPicture("two", "Second", figure, "a line")], ["A note."], **changes,
    )  # fmt: skip


def test_files_are_there_and_the_page_needs_nothing_else(tmp_path):
    page = write(tmp_path / "out", facts={"Seeds": "0, 1"}, lead="The result.")
    assert sorted(path.name for path in page.parent.iterdir()) == ["one.csv", "report.html", "two.png"]
    assert (page.parent / "two.png").read_bytes().startswith(b"\x89PNG")
    assert pd.read_csv(page.parent / "one.csv")["lab_b"][0] == 0.123456789
    text = page.read_text()
    links = Links()
    links.feed(text)
    assert links.open == []
    assert links.found
    assert all(link.startswith("data:image/png;base64,") for link in links.found)
    assert not re.search(r"https?://|url\(|@import", text)
    assert "A &lt;b&gt;" in text
    assert re.search(r'<td class="[^"]*best[^"]*">0.1235</td>', text)


def test_a_report_is_replaced_whole(tmp_path):
    write(tmp_path)
    write(tmp_path)
    assert not list(tmp_path.glob("*.part"))


def scores_of(numbers):
    """Scores like the paper's table, one seed."""
    return pd.DataFrame(
        [
            {"seed": 0, "source": source, "target": target, "system": system, "alignment": "none", "level": "image",
             "metric": "accuracy", "value": value.mean / 100, "n": 100}
            for (source, target, system), value in numbers.items()
        ]
    )  # fmt: skip


def test_the_papers_own_table_gives_its_own_orderings_and_ratios():
    scores = scores_of(table_2())
    found = ordering_table(scores, TABLE_2).values
    assert (found["here"] == found["paper"]).all()
    assert (found["here: mean"] == found["paper: mean"]).all()
    by_name = found.set_index("statement")
    assert by_name.loc["CODA above ODA", "here"] == "19 of 20"
    assert by_name.loc["CODA above ODA", "verdict"] == "mostly"
    assert by_name.loc["CODA above Supervised", "verdict"] == "holds"
    ratios = ratio_table(scores).values
    assert (ratios["here (%)"] == ratios["paper (%)"]).all()
    assert ratios["here (%)"].str.startswith(("174.8", "232.6")).all()


def test_the_papers_numbers_stand_beside_ours_where_sources_match():
    summary = summarise(scores_of(table_2()))
    rows = [("Supervised", "none"), ("CODA", "none")]
    table = score_matrix(summary, "source_3", ["source_8", "source_3"], rows, name="t", title="T")
    assert table.shown.columns.tolist() == ["system", "source_3 (in-domain)", "source_8", "paper: S3", "paper: S8"]
    assert table.shown["source_8"].tolist() == ["15.6", "33.9"]
    assert table.shown["paper: S8"].tolist() == ["15.6 ± 0.9", "33.9 ± 0.2"]
    assert table.shown["source_3 (in-domain)"].tolist() == ["39.0", "–"]
    assert table.best == {(0, 1), (1, 2)}
    assert table.quiet == {"paper: S3", "paper: S8"}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_become_null(value):
    import numpy as np

    frame = pd.DataFrame({"x": [value, 1.5]})
    assert plain({"a": frame, "b": np.float64(value), "c": (np.int64(3), np.array([value, 2.0]))}) == {
        "a": [{"x": None}, {"x": 1.5}], "b": None, "c": [3, [None, 2.0]],
    }  # fmt: skip


def test_a_report_says_what_its_seeds_can_carry():
    assert what_seeds_carry([0, 1]) == (DEVELOPMENT,)
    assert what_seeds_carry([10, 29]) == (CHOSEN,)
    assert what_seeds_carry([3, 12]) == (DEVELOPMENT, CHOSEN)
    assert what_seeds_carry([30, 40]) == ()
    assert what_seeds_carry([100, 139]) == (REPORTING,)
    assert what_seeds_carry([29, 100]) == (CHOSEN,)
