"""Lists on a terminal of 80 columns, in a pipe, with --wide and as JSON, with the long names that platforms have."""

import contextlib
import fcntl
import json
import os
import pty
import re
import struct
import sys
import termios
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coda.cli.ledger import LISTED, row_of
from coda.cli.registry import MOVES, SERVING, VERSIONS
from coda.cli.rows import GAP, Column, fitted, print_json, print_rows, shortened
from coda.contracts import ModelRef, PointerEntry, ReleaseRecord
from coda.registry import Version
from coda.trigger.ledger import LedgerState

AT = datetime(2026, 3, 3, 14, 5, 6, tzinfo=UTC)
DIGEST = "ab12" * 16
RELEASE = "adapt-source_11-2026_03_week_10-3f2a9c1d"
LONG = "Step 'adapt' failed: the store gave no answer for 30 s; nothing is lost, and the run resumes from this step."


def ledger_states():
    names = [("source_11", "2026_03_week_10_rescan_of_week_9"), ("lab_b", "b1")]
    return [
        LedgerState(
            source=source, batch=batch, manifest_digest=DIGEST, manifest_key="m.json", run_id="r", state=state,
            at=AT, owner="trigger-7f9c", attempt=attempt, reasons=reasons, sequence=3,
        )
        for (source, batch), state, attempt, reasons in zip(
            names, ("failed", "incumbent_kept"), (3, 1), ((LONG,), ()), strict=True
        )
    ]  # fmt: skip


def moves():
    record = ReleaseRecord(
        release_id=RELEASE, source="source_11", created_at=AT, method="coda+standardise",
        extractor=ModelRef(name="coda-extractor", version=112, digest=DIGEST),
        head=ModelRef(name="coda-head", version=7, digest=DIGEST), alignment="none", run_id="r", params_digest=DIGEST,
        gate_sentence="Better.", approver="gate",
    )  # fmt: skip
    return [
        PointerEntry(scope="source_11", sequence=17, action="promote", release=record, at=AT, by="gate", reason=LONG)
    ]


def versions():
    tags = {"kind": "extractor", "source": "source_11", "method": "coda+standardise", "line": DIGEST}
    ref = ModelRef(name="coda-extractor", version=112, digest=DIGEST)
    return [Version(ref, tags, AT, ("serving-source_11", "serving-default", "serving-lab_b"))]


LISTS = {
    "ledger": (
        LISTED,
        lambda: [row_of(state) for state in ledger_states()],
        ["source_11/2026_03_week_10_rescan_of_week_9", "lab_b/b1", "incumbent_kept"],
    ),
    "serving": (SERVING, moves, [RELEASE, "source_11", "112", "7"]),
    "history": (MOVES, moves, [RELEASE, "promote"]),
    "versions": (VERSIONS, versions, ["extractor/112", "source_11"]),
}


@pytest.fixture
def on_terminal(monkeypatch):
    """Return what prints a list to a pseudo-terminal of so many columns, and brings its lines."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def shown(name, width, *, wide=False):
        columns, items, _ = LISTS[name]
        ours, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        with os.fdopen(its, "w", encoding="utf-8") as terminal, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            patch.setattr(sys, "__stdout__", terminal)
            print_rows(items(), columns, wide=wide, title="A title")
        parts = []
        with contextlib.suppress(OSError):  # how Linux ends a pseudo-terminal whose writer is gone
            while part := os.read(ours, 65536):
                parts.append(part)
        os.close(ours)
        text = b"".join(parts).decode()
        return re.sub(r"\x1b\[[0-9;]*m", "", text).replace("\r", "").splitlines()

    return shown


@pytest.mark.parametrize("name", LISTS)
def test_a_list_is_one_line_an_item_on_eighty_columns_and_whole_in_a_pipe(name, on_terminal, capsys):
    columns, items, names = LISTS[name]
    lines = on_terminal(name, 80)
    assert lines[0] == "A title"
    assert len(lines) == 2 + len(items())
    assert max(map(len, lines)) <= 80
    for whole in names:
        assert any(re.search(rf"(^| ){re.escape(whole)}( |$)", line) for line in lines[2:]), f"{whole} is broken"
    print_rows(items(), columns, title="A title")
    whole = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert whole[0] == [column.name for column in columns]
    assert whole[1:] == [[column.cell(item) for column in columns] for item in items()]
    for row, line in zip(whole[1:], on_terminal(name, 80, wide=True)[2:], strict=True):
        assert all(cell in line for cell in row)


def test_lists_on_eighty_columns_look_as_they_did(on_terminal):
    shown = "".join(f"{name}\n" + "\n".join(on_terminal(name, 80)[1:]) + "\n" for name in LISTS)
    assert shown == (Path(__file__).parent / "lists_80.txt").read_text(encoding="utf-8")


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 4)), min_size=1, max_size=9), st.integers(20, 200))
def test_widths_take_from_those_who_yield_first_and_never_from_names(drawn, room):
    columns = [Column("c", str, yields=yields) for _, yields in drawn]
    widths = [width for width, _ in drawn]
    left = fitted(widths, columns, room)
    shown = [width for width in left if width]
    length = sum(shown) + GAP * (len(shown) - 1)
    for now, before, column in zip(left, widths, columns, strict=True):
        assert now == before or (column.yields and (now == 0 or column.least <= now < before))
    if length > room:
        assert all(now == 0 for now, column in zip(left, columns, strict=True) if column.yields)
    if sum(widths) + GAP * (len(widths) - 1) <= room:
        assert left == widths
    kept = [column.yields for now, column in zip(left, columns, strict=True) if now]
    dropped = [column.yields for now, column in zip(left, columns, strict=True) if not now]
    assert not kept or not dropped or max(kept) <= min(dropped) or max(kept) == max(dropped)


@given(st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=50), st.integers(1, 50), st.booleans())
def test_what_is_shortened_says_so(text, width, middle):
    short = shortened(text, width, middle=middle)
    assert len(short) <= width
    assert (short == text) == (len(text) <= width)
    if short != text:
        head, mark, tail = short.partition("…")
        assert mark
        assert text.startswith(head)
        assert text.endswith(tail)


def test_json_is_what_the_contracts_say(capsys):
    print_json({"states": ledger_states(), "at": Path("x")})
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"states": [state.model_dump(mode="json") for state in ledger_states()], "at": "x"}
