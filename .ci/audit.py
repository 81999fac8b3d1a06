"""Asks pip-audit about the locked dependencies, and tells 'vulnerable' from 'could not be checked'.

pip-audit alone ends with 0 when the package index does not know a single package (a mirror without the vulnerability
service): that would be a silent pass. Here a package nobody could be asked about is never counted as sound.

Exit codes: 0 all checked and none vulnerable; 1 vulnerable; 2 some or all could not be checked.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SOUND, VULNERABLE, UNCHECKED = 0, 1, 2


def ask(constraints: Path) -> dict[str, Any] | None:
    """Return pip-audit's report, or None when it could not make one; its own words go to standard error."""
    program = Path(sys.executable).parent / "pip-audit"
    command = [
        str(program),
        "-r",
        str(constraints),
        "--no-deps",
        "--disable-pip",
        "--format",
        "json",
        "--timeout",
        "10",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError:
        sys.stderr.write(done.stderr[-2000:])
        return None
    return report if isinstance(report, dict) and report.get("dependencies") else None


def judge(report: dict[str, Any] | None) -> tuple[int, list[str]]:
    """Return the exit code and what to say."""
    if report is None:
        return UNCHECKED, ["NOT CHECKED: pip-audit made no report. This says nothing about vulnerabilities."]
    dependencies = report["dependencies"]
    skipped = [item["name"] for item in dependencies if "skip_reason" in item]
    found = [(item, fault) for item in dependencies for fault in item.get("vulns", ())]
    lines = [
        f"VULNERABLE: {item['name']} {item['version']}: {fault['id']}, fixed in "
        f"{', '.join(fault.get('fix_versions', ())) or 'no release yet'}"
        for item, fault in found
    ]
    if skipped:
        shown = ", ".join(skipped[:5]) + (", ..." if len(skipped) > 5 else "")
        lines.append(
            f"NOT CHECKED: {len(skipped)} of {len(dependencies)} packages ({shown}): the index that was asked knows "
            "nothing about their vulnerabilities. This is no pass."
        )
    if not lines:
        lines = [f"{len(dependencies)} packages checked, none with a known vulnerability."]
    return VULNERABLE if found else UNCHECKED if skipped else SOUND, lines


def main() -> int:
    """Read the command line, ask, and say."""
    parser = argparse.ArgumentParser(description="Known vulnerabilities of locked dependencies.")
    parser.add_argument("constraints", type=Path)
    parser.add_argument(
        "--away-is-no-failure", action="store_true", help="end with 0 when packages could not be checked (still said)"
    )
    arguments = parser.parse_args()
    code, lines = judge(ask(arguments.constraints))
    sys.stdout.write("\n".join(lines) + "\n")
    return SOUND if code == UNCHECKED and arguments.away_is_no_failure else code


if __name__ == "__main__":
    raise SystemExit(main())
