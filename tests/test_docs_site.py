"""The documentation as a site: it builds strictly, is whole, and asks no other host for anything."""

import re
import subprocess
import sys

import pytest

from tests.pages import pages


@pytest.fixture(scope="module")
def site(root, tmp_path_factory):
    """The built site, of which a warning is an error: lost links and anchors, pages that no menu leads to."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=root, capture_output=True, text=True, check=False, env={"PATH": "", "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_in_the_site_and_in_a_menu(site):
    menu = set(re.findall(r'href="([^"#]+\.html)"', (site / "index.html").read_text(encoding="utf-8")))
    # SECURITY.md and CONTRIBUTING.md lie beside README.md, which is for the repository's host alone
    names = [page.name.removeprefix("docs/") for page in pages() if page.name != "README.md"]
    assert len(names) > 80
    for name in names:
        html = re.sub(r"README\.md$", "index.md", name).removesuffix(".md") + ".html"
        assert (site / html).is_file(), name
        assert html in {*menu, "index.html"}, name


def test_nothing_comes_from_another_host(site):
    """Scripts, styles, fonts and pictures lie in the site; links that a reader follows may lead out."""
    for path in site.rglob("*.html"):
        text = re.sub(r"<a\b[^>]*>", "", path.read_text(encoding="utf-8"))
        assert re.findall(r'(?:src|href|url)\s*[=(]\s*"?(?:https?:)?//[^"\s>)]+', text) == [], path.name
    for path in site.rglob("*.css"):
        assert re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", path.read_text(encoding="utf-8")) == [], (
            path.name
        )


def test_markdown_is_rendered_as_written(site):
    """Python-Markdown leaves as text what it does not take for a list, a table or a block."""
    for path in site.rglob("*.html"):
        article = re.search(r"<article.*?</article>", path.read_text(encoding="utf-8"), re.DOTALL)
        text = re.sub(r"<pre.*?</pre>", "", article[0] if article else "", flags=re.DOTALL)
        left = re.findall(r"(?:<p>|<li>)(?:(?!</p>|</li>|<ul>|<ol>).)*?\n\s*(?:[-*]|\d+\.) .{0,40}", text, re.DOTALL)
        left += re.findall(r"\n\|.*-{3}.*\||```.*", text)
        assert left == [], path.name
