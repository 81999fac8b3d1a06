"""What the pages name is there: links and anchors, commands and options, targets, settings, parameters, paths, code."""

import ast
import importlib
import json
import re
import textwrap
from functools import cache

import pytest
import yaml

from coda.monitoring.metric_names import METRICS
from tests.pages import ROOT, Page, pages
from tests.typable import wrong_call, wrong_commands, wrong_parameters, wrong_settings, wrong_targets

PAGES = pages()
PRESENT = [page for page in PAGES if page.of_the_present]
FOLDERS = "coda|components|pipelines|tests|benchmarks|studies|docs|docker|k8s|params|\\.ci|\\.dvc"
PATH = re.compile(rf"(?<![\w/.:{{}}>-])(?:{FOLDERS})/[\w./*-]*[\w*/]")
DOTTED = re.compile(r"(?<![\w/.-])(?:coda|pipelines|benchmarks|studies)(?:\.[A-Za-z_]\w*)+")
OTHERS = {"md", "pem", "pub", "py", "org", "yaml", "json", "git"}
"""Ends of files and hosts, which look like names of modules."""
MADE = ("docker/.env", "docker/context", "docker/secrets")
"""What is written where the repository is used, and what it lacks before."""


def ids(page: Page) -> str:
    return page.name


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_link_leads_to_a_file_and_its_heading(page):
    lost = []
    for link in page.links:
        if re.match(r"[a-z+]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.path.parent / path).resolve() if path else page.path
        if not target.exists() or (anchor and anchor not in Page(target).anchors):
            lost.append(link)
    assert lost == []


@pytest.mark.parametrize("page", PRESENT, ids=ids)
def test_every_command_and_option_exists(page):
    assert [fault for line in page.commands() for fault in wrong_commands(f"`{line}`")] == []


def test_every_command_of_a_block_is_taken_whole():
    """What may be copied: neither quoted within a sentence nor shortened by dots."""
    lines = [(page, line) for page in PRESENT for line in set(page.commands()) - set(page.quoted) if "..." not in line]
    assert len(lines) > 80
    faults = [(page.name, line, wrong_call(line)) for page, line in lines if line.split()[1] != "--help"]
    assert [fault for fault in faults if fault[2]] == []


@pytest.mark.parametrize("line", [
    "coda registry list x", "coda registry lists", "coda step ingest --manifest", "coda step ingest",
    "coda params show --overlays a",
])  # fmt: skip
def test_what_a_command_would_not_take_is_found(line):
    assert wrong_call(line)


@pytest.mark.parametrize("page", PRESENT, ids=ids)
def test_every_target_and_setting_exists(page):
    typed = [words for _, body in page.fences for words in re.findall(r"^(?:\$ )?(make [a-z][a-z-]*)", body, re.M)]
    text = page.prose + "".join(f" `{words}`" for words in typed)
    unread = [fault for fault in wrong_settings(page.text) if fault.split()[-1] not in read_beside_the_library()]
    assert [*wrong_targets(text), *unread] == []


@pytest.mark.parametrize("page", PRESENT, ids=ids)
def test_every_parameter_exists_and_takes_the_value_that_is_named(page):
    # a policy is one value of the parameters, and its errors name places inside it
    faults = [fault for fault in wrong_parameters(page.prose) if "gate.policy." not in fault]
    assert faults == []


@cache
def read_beside_the_library() -> frozenset[str]:
    """Variables of containers, manifests and tests, and the beginnings of several (`CODA_NOTIFY_*`)."""
    files = (path for folder in ("docker", "k8s", "tests") for path in (ROOT / folder).rglob("*") if path.is_file())
    suffixes = {"", ".py", ".sh", ".yml", ".yaml", ".env", ".example"}
    names = {
        name
        for path in files
        if path.suffix in suffixes
        for name in re.findall(r"\bCODA_[A-Z0-9_]*[A-Z0-9]", path.read_text(encoding="utf-8"))
    }
    return frozenset(names | {name[: cut.end()] for name in names for cut in re.finditer("_", name)})


@pytest.mark.parametrize("page", PRESENT, ids=ids)
def test_every_path_of_the_repository_exists(page):
    named = {name.rstrip(".") for name in PATH.findall(page.prose)}
    assert [name for name in sorted(named) if not name.startswith(MADE) and not any(ROOT.glob(name.rstrip("/")))] == []


@pytest.mark.parametrize("page", PRESENT, ids=ids)
def test_every_name_of_the_code_exists(page):
    code = "".join(body for kind, body in page.fences if kind == "python")
    named = {
        name for text in (*page.quoted, code) for name in DOTTED.findall(text) if name.split(".")[-1] not in OTHERS
    }
    assert [name for name in sorted(named) if not resolves(name)] == []


@pytest.mark.parametrize("page", PRESENT, ids=ids)
def test_every_metric_for_prometheus_is_declared(page):
    named = {name for text in page.quoted for name in re.findall(r"\bcoda_[a-z0-9_]*[a-z0-9]\b(?!\*|_\*)", text)}
    assert sorted(named - METRICS.keys() - {"coda_report"}) == [], "coda_report is the job of the Pushgateway"


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or is found in one."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("page", PRESENT, ids=ids)
def test_blocks_of_code_can_be_read_and_import_what_exists(page):
    for kind, body in page.fences:
        if kind == "python":
            for node in ast.walk(ast.parse(textwrap.dedent(body))):
                if isinstance(node, ast.ImportFrom):
                    assert all(resolves(f"{node.module}.{alias.name}") for alias in node.names), ast.unparse(node)
                elif isinstance(node, ast.Import):
                    assert all(resolves(alias.name) for alias in node.names), ast.unparse(node)
        elif kind == "json":
            json.loads(body)
        elif kind in {"yaml", "yml"}:
            list(yaml.safe_load_all(body))


def test_what_is_not_there_is_found(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(
        "# A page\n\n[here](#a-page), [there](#no-such) `coda plates\nshown X` coda/nowhere.py, coda.config.nothing\n\n"
        "```\n$ .venv/bin/coda registry list --no-such [--json]   # coda plate\ncoda is what this prints\n```\n"
    )
    page = Page(path)
    assert page.anchors == {"a-page"}
    assert page.links == ["#a-page", "#no-such"]
    faults = [fault for line in page.commands() for fault in wrong_commands(f"`{line}`")]
    assert len(faults) == 2, faults
    assert "no such command" in faults[1]
    assert "--no-such" in faults[0]
    assert PATH.findall(page.prose) == ["coda/nowhere.py"]
    assert not resolves("coda.config.nothing")
    assert resolves("coda.config.load_params")
