"""`python3 -m coda.benchmark.gpu_check`: see docs/gpu_check.md."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from coda.benchmark.gpu_check.needs import require_packages
from coda.errors import CodaError, TransientError


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or render a record anew; return the exit code.

    Returns:
        0: everything that was asked for is measured. 1: something failed, the page says what. 2: nothing was measured:
        no GPU, a package that is missing, an option that cannot be. 75: the time did not suffice; the same command
        goes on.
    """
    options = _options(arguments)
    try:
        if options.render is not None:
            return _render(options.render)
        require_packages()
        return _check(options)
    except CodaError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return error.exit_code


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python3 -m coda.benchmark.gpu_check", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu_check"), help="folder of gpu_check.json and .md")
    parser.add_argument("--work", type=Path, help="folder of the plate store, 4 GB; OUT/work if not given")
    parser.add_argument("--minutes", type=float, default=8.0, help="limit of this call; a second call resumes")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="as small as can be, to see that everything runs")
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help="such as 'step-*'; may repeat")
    parser.add_argument("--render", type=Path, metavar="JSON", help="write the page of a record anew, measure nothing")
    return parser.parse_args(arguments)


def _check(options: argparse.Namespace) -> int:
    from coda.benchmark.gpu_check.whole_check import Asked, run_check

    asked = Asked(
        options.out, options.work or options.out / "work", options.device, "tiny" if options.tiny else "full",
        options.minutes, options.only,
    )  # fmt: skip
    record, names = run_check(asked, _tell)
    _tell(f"Wrote {options.out / 'gpu_check.json'} and {options.out / 'gpu_check.md'}")
    if all(record.measured(name) for name in names):
        return 0
    return CodaError.exit_code if any(record.failed(name) for name in names) else TransientError.exit_code


def _render(path: Path) -> int:
    from coda.benchmark.gpu_check.check_page import tables_of, write_page
    from coda.benchmark.gpu_check.check_record import read_record

    record = read_record(path)
    _tell(f"Wrote {write_page(path.parent, record, tables_of(record))}")
    return 0


def _tell(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
