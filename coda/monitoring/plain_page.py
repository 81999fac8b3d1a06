"""A plain HTML page of paragraphs, lists and tables: what is left of a run that never got to its report."""

from collections.abc import Sequence
from html import escape

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>body{{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}}
td,th{{text-align:left;vertical-align:top;padding:.2em 1em .2em 0}}code{{background:#eee;padding:0 .2em}}</style>
</head><body><h1>{title}</h1>
{body}
</body></html>
"""


def plain_page(title: str, parts: Sequence[str]) -> str:
    """Return a page that runs no script and fetches nothing.

    Args:
        title: Title, as text.
        parts: Its parts in order, as HTML; the functions of this module make them.
    """
    return _PAGE.format(title=escape(title), body="\n".join(parts))


def heading(text: str) -> str:
    """Return a heading as HTML; the text is escaped, as in all functions here."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str, command: str = "") -> str:
    """Return a paragraph that may end with something to type."""
    return f"<p>{escape(text)}{f' <code>{escape(command)}</code>' if command else ''}</p>"


def bullets(items: Sequence[str]) -> str:
    """Return a list."""
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of text."""
    lines = [("th", head), *(("td", row) for row in rows)]
    made = ("".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) for tag, row in lines)
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in made)}</table>"
