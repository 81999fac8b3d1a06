"""The pages that people read, taken apart: text, fenced blocks, links, headings, commands."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOP = ("README.md", "SECURITY.md", "CONTRIBUTING.md")

_FENCE = re.compile(r"^(?P<ticks>`{3,})(?P<kind>\w*)\n(?P<body>.*?)^(?P=ticks)$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!\\)\]\(([^)\s]+)\)")
_COMMAND = re.compile(r"(?:^|(?:&&|;|--|\|) |bin/)(coda [^;]*?)(?= &&|;|\s#|$)")


@dataclass(frozen=True)
class Page:
    """A Markdown file of the repository."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def of_the_present(self) -> bool:
        """Whether it says what holds today; a decision says what was decided, in the words of its day."""
        return self.path.parent.name != "decisions"

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def fences(self) -> list[tuple[str, str]]:
        """Kind and content of each fenced block."""
        return [(found["kind"], found["body"]) for found in _FENCE.finditer(self.text)]

    @cached_property
    def prose(self) -> str:
        """The text outside of fenced blocks."""
        return _FENCE.sub("", self.text)

    @property
    def quoted(self) -> list[str]:
        """What stands in single backquotes, on one line each."""
        return [" ".join(words.split()) for words in re.findall(r"`([^`]+)`", self.prose)]

    @property
    def links(self) -> list[str]:
        return _LINK.findall(re.sub(r"`[^`]*`", "", self.prose))

    @cached_property
    def anchors(self) -> set[str]:
        """Anchors of its headings, as repository hosts make them (and the site, by the same rule)."""
        counted: Counter[str] = Counter()
        found = set()
        for heading in re.findall(r"^#+ (.+?) *$", self.prose, re.MULTILINE):
            shown = re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading)
            slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
            found.add(f"{slug}-{counted[slug]}" if counted[slug] else slug)
            counted[slug] += 1
        return found

    def commands(self) -> Iterator[str]:
        """Yield commands of ours, of blocks and of the text, without remarks and brackets of what may be left out."""
        for _, body in self.fences:
            lines = body.replace("\\\n", " ").splitlines()
            if any(line.startswith("$ ") for line in lines):
                lines = [line for line in lines if line.startswith("$ ")]
            for line in lines:
                yield from _COMMAND.findall(line.strip().removeprefix("$ ").replace("[", "").replace("]", ""))
        yield from (words.removesuffix(" ...") for words in self.quoted if words.startswith("coda "))


def pages() -> list[Page]:
    """Return every page, in the order of their names."""
    return [Page(path) for path in (*(ROOT / name for name in TOP), *sorted((ROOT / "docs").rglob("*.md")))]
