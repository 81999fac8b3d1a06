"""What mkdocs.yml cannot say: whole folders in the navigation, and pages that lie beside README.md."""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_FENCED = re.compile(r"^(```.*?^```)", re.MULTILINE | re.DOTALL)
_LIST_AT_A_PARAGRAPH = re.compile(r"^((?![-*] |\d+\. |\s|\|).*\S)\n(?=- |1\. )", re.MULTILINE)

BESIDE = ("SECURITY.md", "CONTRIBUTING.md")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put every page of a folder into the navigation where the folder's name stands, its README.md first."""
    config.nav = [
        {title: _pages(Path(config.docs_dir), at) for title, at in entry.items()} for entry in config.nav or []
    ]
    return config


def _pages(docs: Path, at: Any) -> Any:
    if not (isinstance(at, str) and at.endswith("/")):
        return at
    names = sorted(path.name for path in (docs / at).glob("*.md"))
    return [f"{at}{name}" for name in sorted(names, key=lambda name: name != "README.md")]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that a repository's host shows at its top."""
    for name in BESIDE:
        path = Path(config.config_file_path).parent / name
        files.append(File.generated(config, name, content=path.read_text(encoding="utf-8").replace("](docs/", "](")))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Have links to these pages stay inside the site, and lists begin where they do on a repository's host.

    Python-Markdown wants an empty line between a paragraph and a list; CommonMark does not.
    """
    for name in BESIDE:
        markdown = markdown.replace(f"](../{name}", f"]({name}")
    parts = _FENCED.split(markdown)
    parts[::2] = [_LIST_AT_A_PARAGRAPH.sub(r"\1\n\n", part) for part in parts[::2]]
    return "".join(parts)
