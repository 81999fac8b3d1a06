"""The pages about drift without a browser: what they say, cost and may load, and when they are built."""

import json
import re
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser

import numpy as np
import pytest
from servers import moto_server
from simulated_history import START, Story, batch, frame_of, write_history
from typer.testing import CliRunner

from coda.cli.monitoring import app
from coda.monitoring.batches import write_batch
from coda.monitoring.site import build_site, pages
from coda.monitoring.site.build import Now
from coda.monitoring.site.lines import source_of
from coda.storage.objects import ObjectStore

__all__ = ["moto_server"]


@pytest.fixture
def settings(moto_server, tmp_path):
    return moto_server.settings(tmp_path)


@pytest.fixture
def store(settings):
    return ObjectStore(settings.platform, settings.s3_endpoint)


class Page(HTMLParser):
    """What a page may load, and what a content security policy would stop."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.links, self.inline, self.data, self._in = [], [], [], "", None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        known = dict(attrs)
        self._in = (tag, known)
        self.inline += [f"{tag} {name}" for name in known if name == "style" or name.startswith("on")]
        self.inline += (
            ["script"] if tag == "script" and "src" not in known and known.get("type") != "application/json" else []
        )
        self.inline += ["style"] if tag == "style" else []
        self.loads += [known[name] for name in ("src",) if name in known]
        self.loads += [known["href"]] if tag == "link" else []
        self.links += [known["href"]] if tag == "a" else []

    def handle_data(self, data):
        if self._in and self._in[0] == "script":
            self.data += data


def test_pages_are_built_when_something_changed_and_only_then(store):
    moves = {name: write_history(store, name, 12, 4, seed=k) for k, name in enumerate(("lab_b", "lab_c"))}
    now = Now([entry for found in moves.values() for entry in found])
    first = set(build_site(store, now))
    assert {
        "site/index.html",
        "site/models.html",
        "site/site.js",
        "site/source/lab_b.html",
        "site/controls/lab_c.html",
    } <= first
    assert build_site(store, now) == [], "nothing changed"
    rng = np.random.default_rng(9)
    write_batch(store, *batch("lab_c", 12, 4, Story(), rng))
    again = set(build_site(store, now))
    assert {key for key in again if "lab_" in key} == {
        f"site/{key}"
        for key in ("source/lab_c.html", "source/lab_c.csv", "controls/lab_c.html", "predictions/lab_c.html")
    }
    assert "b0012" in store.get("site/index.html").decode()
    assert build_site(store, Now(now.entries, running=[{"batch": "x/y", "state": "running", "since": "now"}])) == [
        "site/index.html", "site/models.html", "site/known.json",
    ]  # fmt: skip
    store.put("site/known.json", b'{"cut sho')
    assert set(build_site(store, now)) >= first, "what is known was lost: all is built again"


def test_every_link_between_pages_leads_to_one(store, tmp_path):
    now = Now(write_history(store, "lab_b", 12, 4))
    files = {}
    build_site(store, now, files.__setitem__)
    for key, body in files.items():
        if not key.endswith(".html"):
            continue
        page = Page(body.decode())
        assert page.links
        for link in (*page.links, *page.loads):
            if link.startswith(("#", "data:")):
                continue
            parts = [*key.split("/")[:-1], *link.partition("#")[0].split("/")]
            while ".." in parts:
                at = parts.index("..")
                del parts[at - 1 : at + 1]
            target = "/".join(parts)
            assert target in files or target.startswith(("reports/lab_b/", "ledger/")), f"{link} of {key}"


def test_nothing_needs_to_be_allowed_that_the_policy_forbids(store):
    files = {}
    build_site(store, Now(write_history(store, "lab_b", 12, 4)), files.__setitem__)
    for key, body in files.items():
        if key.endswith(".html"):
            page = Page(body.decode())
            assert page.inline == [], key
            assert all(re.fullmatch(r"(\.\./)*site\.(css|js)|data:,", name) for name in page.loads), page.loads
            assert 'http-equiv="Content-Security-Policy" content="default-src' in body.decode()
    assert "unsafe" not in pages.POLICY
    script = files["site/site.js"].decode()
    assert not re.search(r"\beval\b|Function\(|innerHTML|fetch\(|XMLHttp", script)


def test_names_that_others_chose_stay_text(store):
    rng = np.random.default_rng(1)
    for k in range(7):
        facts, numbers = batch("lab_b", k, 4, Story(), rng)
        evil = [
            number.model_copy(update={"subject": "</script><b>x"})
            for number in numbers
            if number.measure == "class_share"
        ]
        write_batch(store, facts, [*numbers, *evil])
    files = {}
    build_site(store, Now(), files.__setitem__)
    text = files["site/predictions/lab_b.html"].decode()
    assert "<b>x" not in text
    assert "&lt;/script&gt;&lt;b&gt;x" in text
    assert "</script><b>x" in [chart["n"] for chart in json.loads(Page(text).data)["charts"]]


def test_a_slow_drift_is_said_in_one_sentence_and_a_steady_source_is_steady():
    slow = source_of("lab_b", frame_of("lab_b", 60, 4, Story("slow", 35), seed=2))
    assert slow.level == "drift"
    assert "ER is below its centre since b00" in slow.sentence
    assert "EWMA" in slow.sentence
    steady = [source_of("lab_b", frame_of("lab_b", 30, 4, seed=seed)).level for seed in range(8)]
    assert steady.count("drift") <= 1
    young = source_of("lab_b", frame_of("lab_b", 4, 4))
    assert young.level == "unknown"


def test_a_step_is_seen_in_its_first_batch_and_a_bad_plate_stands_apart():
    step = source_of("lab_b", frame_of("lab_b", 31, 4, Story("step", 29), seed=3))
    assert step.level == "drift"
    bad = source_of("lab_b", frame_of("lab_b", 26, 8, Story("bad_plate", 25), seed=4))
    (focus,) = [line for line in bad.lines if line.name == "focus, DNA"]
    assert [plate for plate, _ in focus.apart[25]] == ["p04"]
    (control,) = [line for line in bad.controls if line.name == "negative controls, bright structures, DNA"]
    assert 25 in control.apart


def test_plates_on_both_sides_break_the_range_rule():
    frame = frame_of("lab_b", 14, 8, seed=5)
    newest = (frame["batch"] == "b0013") & (frame["measure"] == "negcon_p95") & (frame["subject"] == "ER")
    spread = frame[(frame["measure"] == "negcon_p95") & (frame["subject"] == "ER")]["value"].std()
    places = frame.index[newest]
    frame.loc[places[0], "value"] += 6 * spread
    frame.loc[places[1], "value"] -= 6 * spread
    (line,) = [
        item for item in source_of("lab_b", frame).controls if item.name == "negative controls, bright structures, ER"
    ]
    assert "R-4s" in line.chart.broken[13]


def test_a_new_microscope_starts_its_own_history():
    frame = frame_of("lab_b", 24, 4, seed=6)
    late = frame["batch"] >= "b0018"
    frame["instrument"] = frame["instrument"].astype(str)
    frame.loc[late, "instrument"] = "Operetta"
    frame.loc[late & (frame["measure"] == "p50"), "value"] *= 3
    source = source_of("lab_b", frame)
    (line,) = [item for item in source.lines if item.name == "median brightness, DNA"]
    assert not line.chart.out(18), "three times as bright, and no earlier batch to compare with"


def test_known_compounds_that_changed_class_are_named_with_how_often_they_were_called_so():
    source = source_of("lab_b", frame_of("lab_b", 41, 4, seed=7))
    first = source.changed[0]
    assert (first.name, first.kind, first.before, first.now) == ("REF-0", "positive control", "actin", "dna damage")
    usable = source.batches[~source.batches["state"].isin(["refused", "failed"])]
    assert first.agreed == first.batches == len(usable) - 1
    (line,) = [item for item in source.answers if item.name == "share that changed class"]
    assert np.isnan(line.values[0])
    assert line.values[40] >= 5 / 15, "all five controls"
    assert 0 < np.nanmean(line.values[3:40]) < 0.15, "a tenth of the other compounds, as simulated"
    text = pages.predictions_page(source, ())
    assert f"{first.agreed} of {first.batches} batches" in text


def test_class_shares_that_moved_are_said_with_an_interval_and_make_a_drift():
    source = source_of("lab_b", frame_of("lab_b", 22, 4, Story("shares", 21), seed=9))
    moved = {name for name, out in zip(source.shares.classes, source.shares.told.moved, strict=True) if out}
    assert moved == {"kinase", "tubulin"}
    (line,) = [item for item in source.answers if item.name == "distance of class shares to history"]
    assert line.chart.out(21)
    assert source.level == "drift"
    text = pages.predictions_page(source, ())
    assert "farther than history makes likely" in text
    assert text.count('class="interval moved"') == 2
    steady = source_of("lab_b", frame_of("lab_b", 22, 4, seed=9))
    assert not steady.shares.told.moved.any()
    assert "as history makes likely" in pages.predictions_page(steady, ())


def test_class_shares_are_compared_with_batches_of_the_same_classes_alone():
    frame = frame_of("lab_b", 22, 4, seed=8)
    new = (frame["batch"] >= "b0018") & (frame["measure"] == "class_share") & (frame["subject"] == "actin")
    frame.loc[new, "subject"] = "a class of the new head"
    source = source_of("lab_b", frame)
    assert source.shares is None, "four batches of the new head at most"
    assert "Newest class shares against history" not in pages.predictions_page(source, ())


def test_a_thousand_batches_fit(store):
    source = source_of("lab_b", frame_of("lab_b", 1000, 4, Story("slow", 900)))
    for build in (pages.source_page, pages.controls_page, pages.predictions_page):
        assert len(build(source, ()).encode()) < 2_000_000
    text = pages.source_page(replace(source, lines=source.lines * 3), ())
    assert len(text.encode()) < 2_000_000, "a hundred pictures: with fewer batches each"
    assert "The newest 352 of 1000" in text
    assert len(pages.numbers_csv(source).splitlines()) == 1001
    assert source.batches["when"].is_monotonic_increasing
    assert source.batches["when"].iloc[-1] == START + timedelta(hours=14 * 999)


def test_the_command_writes_a_folder_that_opens_from_a_disk(settings, store, tmp_path, monkeypatch):
    for name, value in settings.environment.items():
        monkeypatch.setenv(name, value)
    write_history(store, "lab_b", 6, 4)
    facts, _ = batch("lab_b", 3, 4, Story(), np.random.default_rng(0))
    store.put(facts.page, b"<p>the report</p>")
    done = CliRunner().invoke(app, ["site", "--out", str(tmp_path / "x"), "--reports"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "x/site/index.html").is_file()
    assert (tmp_path / "x" / facts.page).read_bytes() == b"<p>the report</p>"
    assert list(store.list("site/")) == []
    assert CliRunner().invoke(app, ["site"]).exit_code == 0
    assert store.exists("site/source/lab_b.html")
