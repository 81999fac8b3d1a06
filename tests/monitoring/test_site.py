"""The pages about drift without a browser: what they say, cost and may load, and when they are built."""

import json
import re
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser

import numpy as np
import pytest
from changed_batches import compared
from servers import moto_server
from simulated_history import START, Story, batch, frame_of, write_history
from typer.testing import CliRunner

from coda.cli.monitoring import app
from coda.contracts.changed import PlateTold
from coda.monitoring.batch_numbers import changed_numbers
from coda.monitoring.batch_table import write_batch
from coda.monitoring.site import build_site, pages
from coda.monitoring.site.build import Now
from coda.monitoring.site.changes import changed_page
from coda.monitoring.site.lines import source_of
from coda.plates.layout import well_name
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
        "site/changed/lab_b.html",
    } <= first
    assert build_site(store, now) == [], "nothing changed"
    rng = np.random.default_rng(9)
    write_batch(store, *batch("lab_c", 12, 4, Story(), rng))
    again = set(build_site(store, now))
    assert {key for key in again if "lab_" in key} == {
        f"site/{key}"
        for key in (
            "source/lab_c.html",
            "source/lab_c.csv",
            "controls/lab_c.html",
            "predictions/lab_c.html",
            "changed/lab_c.html",
        )
    }
    assert "b0012" in store.get("site/index.html").decode()
    assert build_site(store, Now(now.entries, running=[{"batch": "x/y", "state": "running", "since": "now"}])) == [
        "site/index.html", "site/models.html", "site/known.json",
    ]  # fmt: skip
    store.put("site/known.json", b'{"cut sho')
    assert set(build_site(store, now)) >= first, "what is known was lost: all is built again"


def test_every_link_between_pages_leads_to_one(store, tmp_path):
    now = Now(write_history(store, "lab_b", 12, 4))
    keep_changed(store, "lab_b", 12)
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
    moves = write_history(store, "lab_b", 12, 4)
    keep_changed(store, "lab_b", 12)
    build_site(store, Now(moves), files.__setitem__)
    for key, body in files.items():
        if key.endswith(".html"):
            page = Page(body.decode())
            assert page.inline == [], key
            assert all(
                re.fullmatch(r"(\.\./)*site\.(css|js)|data:,|\.\./\.\./reports/.*/changed-\d\.png", name)
                for name in page.loads
            ), page.loads
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


def keep_changed(store, source, count):
    """Compare the newest two of so many batches with earlier ones, as their reports keep it."""
    for k in (count - 2, count - 1):
        facts, numbers = batch(source, k, 4, Story(), np.random.default_rng(k))
        told = compared(seed=k, dim="ER", source=source, batch=facts.batch)
        write_batch(store, facts, [*numbers, *changed_numbers(told)])
        folder = facts.page.rpartition("/")[0]
        store.put(f"{folder}/changed.json", told.to_json().encode())
        for number in range(len(told.pairs)):
            store.put(f"{folder}/changed-{number}.png", b"a picture")


def test_what_changed_is_shown_of_the_newest_batches(store):
    write_history(store, "lab_b", 12, 4)
    keep_changed(store, "lab_b", 12)
    files = {}
    build_site(store, Now(), files.__setitem__)
    text = files["site/changed/lab_b.html"].decode()
    newest, before = text.index('id="b0011"'), text.index('id="b0010"')
    assert newest < before
    assert text.index('<th scope="row">ER <span class="tag watch">stands apart') < text.index('<th scope="row">DNA')
    assert text.count("<img ") == 12
    assert 'aria-label="Plate b0011_p0: mean' in text
    assert text.count('href="../changed/lab_b.html"') == 1
    assert 'href="../changed/lab_b.html"' in files["site/source/lab_b.html"].decode()
    assert 'href="changed/lab_b.html"' in files["site/index.html"].decode()
    store.put("reports/lab_b/b0011/" + batch("lab_b", 11, 4, Story(), np.random.default_rng(0))[0].page.split("/")[3]
              + "/changed.json", b'{"of a later": "program"}')  # fmt: skip
    build_site(store, Now(), files.__setitem__, everything=True)
    assert 'id="b0011"' not in files["site/changed/lab_b.html"].decode()
    assert 'id="b0010"' in files["site/changed/lab_b.html"].decode()


def test_thirty_large_plates_a_batch_fit_on_the_page_of_what_changed():
    source = source_of("lab_b", frame_of("lab_b", 12, 4))
    plate = PlateTold(
        plate="p", told=0.9, score=0.8, fields=1536, wells={well_name(r, c): 0.5 for r in range(32) for c in range(48)}
    )
    told = compared().model_copy(update={"plates": (plate,) * 30})
    facts = source.batches.iloc[-1].to_dict()
    assert len(changed_page(source, [(facts, told)] * 6).encode()) < 2_000_000


def test_a_source_that_was_never_compared_says_so(store):
    write_history(store, "lab_b", 6, 4)
    files = {}
    build_site(store, Now(), files.__setitem__)
    assert "Nothing is compared yet" in files["site/changed/lab_b.html"].decode()


def test_a_slow_drift_is_said_in_one_sentence_and_a_steady_source_is_steady():
    slow = source_of("lab_b", frame_of("lab_b", 60, 4, Story("slow", 35), seed=2))
    assert slow.level == "drift"
    assert "ER is below its centre since b00" in slow.sentence
    assert "CUSUM" in slow.sentence
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
    assert [name for name, _, _ in source.microscopes] == ["Operetta", "Opera Phenix"]
    row = pages.fleet_row(source, "")
    assert [(one["microscope"], one["batch"], one["count"]) for one in row["microscopes"]] == [
        ("Operetta", "b0023", 6), ("Opera Phenix", "b0017", 18),
    ]  # fmt: skip
    few = source_of("lab_b", frame[frame["batch"] <= "b0020"])
    assert few.level == "unknown"
    assert few.sentence.startswith("3 accepted batches of this microscope")
    assert few.microscopes[1][1] != "unknown", "the other one goes on being judged"


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
    assert "Estimated accuracy" in text
    assert "Estimated accuracy" not in pages.source_page(source, ())


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
    store.put(facts.page.replace("report.html", "changed-0.png"), b"a picture")
    done = CliRunner().invoke(app, ["site", "--out", str(tmp_path / "x"), "--reports"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "x/site/index.html").is_file()
    assert (tmp_path / "x" / facts.page).read_bytes() == b"<p>the report</p>"
    assert (tmp_path / "x" / facts.page).with_name("changed-0.png").read_bytes() == b"a picture"
    assert list(store.list("site/")) == []
    assert CliRunner().invoke(app, ["site"]).exit_code == 0
    assert store.exists("site/source/lab_b.html")
