"""The pages about drift in a real Chromium: from disk and server, a thousand batches, narrow, dark, by keyboard."""

import functools
import http.server
import shutil
import threading
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from browser import Browser
from changed_batches import compared
from simulated_history import START, Story, frame_of, release

from coda.contracts.channels import STAINS, colours_of, roles_of, tints_of
from coda.monitoring.change_tables import picture_name
from coda.monitoring.report.typical_fields import draw_pairs
from coda.monitoring.site import pages
from coda.monitoring.site.changes import changed_page
from coda.monitoring.site.lines import source_of

pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium (tests/services/run.sh)"),
]

BATCHES = 1000


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("platform")
    source = source_of("lab_b", frame_of("lab_b", BATCHES, 6, Story("slow", 900)))
    moves = [
        release("lab_b", n + 1, START + timedelta(hours=14 * 100 * n), sequence=n + 1) for n in range(BATCHES // 100)
    ]
    told = [(source.batches.iloc[-k].to_dict(), compared(seed=k, dim="ER", plates=8, wells=60)) for k in range(1, 7)]
    images = np.random.default_rng(0).integers(0, 4000, (6, 2, len(STAINS), 96, 96), dtype=np.uint16)
    tints = tints_of(STAINS, roles_of(STAINS, {}), colours_of(STAINS, {}))
    for facts, changed in told:
        for number, picture in enumerate(draw_pairs(changed, images, tints)):
            path = (folder / facts["page"]).with_name(picture_name(number))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture.png)
    written = {
        "changed/lab_b.html": changed_page(source, told),
        "source/lab_b.html": pages.source_page(source, moves),
        "controls/lab_b.html": pages.controls_page(source, moves),
        "predictions/lab_b.html": pages.predictions_page(source, moves),
        "index.html": pages.fleet_page([pages.fleet_row(source, "lab_b-0010")], (), ()),
        "models.html": pages.models_page(moves, source.batches),
        "site.css": pages.resource("site.css"),
        "site.js": pages.resource("site.js"),
    }
    for name, text in written.items():
        path = folder / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for page in source.batches["page"]:
        path = folder / page
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"<!doctype html><title>Report</title><p>{page}</p>")
    return folder


@pytest.fixture(scope="module")
def address(site):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def end_headers(self):
            if self.path.startswith("/site/"):
                self.send_header("Content-Security-Policy", pages.POLICY)
            super().end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def browser(tmp_path):
    browser = Browser(tmp_path / "profile")
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def shots():
    folder = Path(".services/site")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


PLOT = "document.querySelectorAll('.plot')[0]"


def test_a_thousand_batches_load_in_a_second_and_break_no_policy(browser, address, site, shots):
    for name in ("index", "source/lab_b", "controls/lab_b", "predictions/lab_b", "changed/lab_b", "models"):
        assert (site / "site" / f"{name}.html").stat().st_size < 2_000_000
        times = [browser.open(f"{address}/site/{name}.html") for _ in range(3)]
        assert min(times) < 1000, f"{name}: {times} ms"
        browser.picture(shots / f"{name.replace('/', '-')}.png")
    assert browser.troubles == []


def test_the_same_pages_open_from_a_disk(browser, site):
    browser.open((site / "site/index.html").as_uri())
    browser.js("document.querySelector('tbody th a').click()")
    browser.wait("location.pathname.endsWith('/source/lab_b.html') && document.readyState == 'complete'")
    browser.js(f"{PLOT}.focus()")
    browser.key("ArrowLeft")
    assert browser.js("document.getElementById('tip').hidden") is False, "the script works"
    assert browser.troubles == []


def test_hover_tells_and_a_click_opens_the_report(browser, address, shots):
    browser.open(f"{address}/site/source/lab_b.html")
    box = browser.js(f"JSON.parse(JSON.stringify({PLOT}.getBoundingClientRect()))")
    x, y = box["left"] + box["width"] * 0.5005, box["top"] + 40
    browser.pointer("mouseMoved", x, y)
    said = str(browser.js("document.getElementById('tip').textContent"))
    assert said.startswith("b0500, 2025-")
    assert "usual" in said
    browser.picture(shots / "hover.png")
    browser.pointer("mousePressed", x, y)
    browser.pointer("mouseReleased", x, y)
    browser.wait("document.title == 'Report'")
    assert "/reports/lab_b/b0500/" in str(browser.js("location.pathname"))


def test_keys_go_through_the_batches_and_say_them(browser, address):
    browser.open(f"{address}/site/controls/lab_b.html")
    browser.js(f"{PLOT}.focus()")
    for name in ("Home", "ArrowRight", "ArrowRight"):
        browser.key(name)
    assert str(browser.js("document.getElementById('spoken').textContent")).startswith("b0002, ")
    browser.key("Enter")
    browser.wait("location.pathname.includes('/reports/lab_b/b0002/')")
    assert browser.troubles == []


def test_a_drift_leads_to_what_changed_with_pictures_from_disk_and_server(browser, address, site):
    for start in (f"{address}/site/index.html", (site / "site/index.html").as_uri()):
        browser.open(start)
        browser.js("document.querySelector('td small a').click()")
        browser.wait("location.pathname.endsWith('/changed/lab_b.html') && document.readyState == 'complete'")
        browser.wait("document.querySelector('.pairs img').naturalWidth > 0")
        assert browser.js("document.querySelectorAll('.pairs img').length") == 36
        alts = browser.js("[...document.querySelectorAll('.pairs img')].map(image => image.alt)")
        assert all(text.startswith("Before and now: ") for text in alts)
        assert browser.js("document.querySelectorAll('svg.wells[role=img]').length") == 8 * 6
    assert browser.troubles == []


def test_every_picture_has_its_table(browser, address):
    browser.open(f"{address}/site/source/lab_b.html")
    pictures = browser.js("document.querySelectorAll('figure[data-chart]').length")
    assert browser.js("document.querySelectorAll('figure[data-chart] details').length") == pictures > 30
    browser.js("document.querySelector('figure details').open = true")
    browser.wait("document.querySelectorAll('figure details[open] tbody tr').length == 1000")
    first = "[...document.querySelector('figure details tbody tr').cells].map(cell => cell.textContent)"
    assert browser.js(first)[0] == "b0999"
    labels = browser.js("[...document.querySelectorAll('.plot[tabindex=\"0\"]')].map(p => p.ariaLabel)")
    assert len(labels) == pictures
    assert all("Newest: b0" in label for label in labels)


@pytest.mark.parametrize("name", ["index", "source/lab_b", "changed/lab_b", "models"])
def test_narrow_screens_need_no_sideways_scrolling(browser, address, shots, name):
    browser.open(f"{address}/site/{name}.html", width=390, height=844)
    assert browser.js("document.documentElement.scrollWidth") <= 390
    browser.picture(shots / f"narrow-{name.replace('/', '-')}.png")


def test_words_can_be_read_in_light_and_dark(browser, address, shots):
    """Contrast of what is written and of what is drawn, by the formula of WCAG 2: 4.5 for words, 3 for signs."""
    for dark in (False, True):
        browser.open(f"{address}/site/source/lab_b.html", dark=dark)
        browser.picture(shots / f"{'dark' if dark else 'light'}.png")
        colours = browser.js(
            "(() => { const s = getComputedStyle(document.documentElement); return Object.fromEntries("
            "['ink','soft','paper','link','series','out','held','bad','good']"
            ".map(name => [name, s.getPropertyValue('--' + name)])) })()"
        )
        paper = luminance(colours.pop("paper"))
        for name, colour in colours.items():
            a, b = sorted((luminance(colour), paper))
            assert (b + 0.05) / (a + 0.05) > (3 if name in {"series", "out"} else 4.5), (name, dark)


def luminance(colour):
    digits = colour.strip().removeprefix("#")
    digits = "".join(d * 2 for d in digits) if len(digits) == 3 else digits
    parts = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
