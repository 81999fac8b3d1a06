"""Writes docs/drift_hour.md: an hour of somebody who watches drift, by really running every command of it.

    python tests/monitoring/drift_hour.py runs/demo/seed-0 docs/drift_hour.md

It begins where `make demo` ends, and adds to its state: one more weekly batch arrives, the trigger runs it and tells a
receiver on this machine. Only the receiver is this script's own.
"""

import fcntl
import hashlib
import hmac
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEY = "a key of this hour alone"

from coda.local import routine  # noqa: E402
from coda.local.services import EmbeddedServices  # noqa: E402
from coda.simulation.delivery import simulate_batch  # noqa: E402

LOOK = """\
import coda.monitoring
rows = coda.monitoring.history(source="lab_d")
rows = rows[rows.measure.isin(["p95", "negcon_p95"])]
table = rows.groupby(["measure", "subject", "batch"]).value.median().unstack()
print((100 * table.div(table[["w01", "w02", "w03", "w04"]].mean(axis=1), axis=0)).round().astype(int).to_string())
"""

OTHERS = """\
import coda.monitoring
rows = coda.monitoring.history(source="lab_d")
wanted = ["focus", "cells", "confidence", "abstained_share", "drift_after/frechet_to_source"]
rows = rows[(rows.plate == "") & rows.measure.isin(wanted)]
print(rows.groupby(["measure", "batch"]).value.median().unstack().round(2).to_string())
"""

PAGES = """\
*Batches*: the brightness of every stain, median and bright structures, goes down from week 5 on, faster each
week, while the blue band of what is usual widens around it, since history takes the drift in: each week by itself
lies inside. Rings (four in a row on one side) begin in week 7 or 8, the CUSUM in week 10. *Controls*: negative and
positive controls do the same, and the CUSUM of most has come down to its line; for week 8 the charts of the positive
controls name plate `lab_d_w08_p3`, which stands apart. *Predictions*: the Rho kinase inhibitor is called more than
twice as often since week 7, which the laboratory meant. *What changed* calls week 11 as usual, since it compares
with the four weeks before, which are dark, too; its pictures, before on the left, now on the right, on one scale of
grey values, are of the same kinds of cells, darker, and by the embedding now and before cannot be told apart."""
"""What is seen on the pages of this very hour; to be looked at again when it is spent again."""

CONTROLS = """\
import coda.monitoring
rows = coda.monitoring.history(source="lab_d")
rows = rows[(rows.measure == "robust_z_prime") & (rows.batch == "w08")]
print(rows[["batch", "plate", "value"]].round(2).to_string(index=False))
"""


@dataclass
class Receiver:
    """What a chat or pager is elsewhere: takes messages, and says whether their signatures are genuine."""

    told: list[dict[str, str]] = field(default_factory=list)

    def __enter__(self) -> "Receiver":
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                stamp = self.headers["X-Coda-Timestamp"]
                mac = hmac.new(KEY.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
                signed = hmac.compare_digest(self.headers["X-Coda-Signature"], f"sha256={mac}")
                genuine = signed and abs(time.time() - int(stamp)) < 300
                if genuine:
                    receiver.told.append(json.loads(body))
                self.send_response(200 if genuine else 403)
                self.end_headers()
                self.wfile.write(b"ok" if genuine else b"not genuine")

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/drift"


@dataclass
class Hour:
    """The transcript as it grows."""

    environment: dict[str, str]
    hidden: dict[str, str]
    text: str = ""

    def say(self, words: str) -> None:
        self.text += f"\n{words}\n"

    def show(self, words: str, language: str) -> None:
        for secret, name in self.hidden.items():
            words = words.replace(secret, name)
        self.text += f"\n````{language}\n{words}\n````\n"

    def run(self, *arguments: str) -> None:
        shown = " ".join(f'"{item}"' if " " in item else item for item in arguments)
        output, code = self._output([sys.executable, "-m", "coda", *arguments])
        self.show(f"$ coda {shown}\n{output}" + (f"\n(exit code {code})" if code else ""), "console")

    def python(self, script: str) -> None:
        output, _ = self._output([sys.executable, "-c", script])
        self.show(script.rstrip(), "python")
        self.show(output, "text")

    def _output(self, command: list[str]) -> tuple[str, int]:
        environment = {**os.environ, **self.environment, "COLUMNS": "100", "NO_COLOR": "1"}
        ours, its = pty.openpty()  # lists are for the terminal; in a pipe they are for programs
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        process = subprocess.Popen(command, stdout=its, stderr=its, env=environment, cwd=ROOT)
        os.close(its)
        parts = []
        with suppress(OSError):  # how Linux ends a pseudo-terminal whose writer is gone
            while part := os.read(ours, 65536):
                parts.append(part)
        os.close(ours)
        printed = re.sub(r"\x1b\[[0-9;]*m", "", b"".join(parts).decode()).replace("\r", "")
        return "\n".join(line.rstrip() for line in printed.splitlines()), process.wait()


def spend(hour: Hour, receiver: Receiver, work: Path, seed: int) -> None:
    """The hour itself."""
    hour.say(
        "# Follow a drift from a message to its cause\n\nMade by `python "
        "tests/monitoring/drift_hour.py runs/demo/seed-0 docs/drift_hour.md` where `make demo` "
        "ends,\nwhich runs every command. Plates are simulated; pipeline, pages, "
        "message and figures are what they are.\n\n## A message\n\nThe operator has set `CODA_NOTIFY_URL` to a "
        "receiver on this machine, and `CODA_NOTIFY_KEY`; it checks signatures."
    )
    hour.run("monitoring", "notify", "--test")
    receiver.told.clear()
    week = routine.WEEKS + 1
    name = routine.batch_name(week)
    plates = tuple(f"{routine.NAME}_{name}_p{number}" for number in range(1, routine.PLATES + 1))
    simulate_batch(routine.experiment(seed, week), routine.laboratory(week), name, plates, work / "plates", workers=2)
    hour.say(f"The batch of week {week} arrives, and the trigger runs it:")
    hour.run("data", "deliver", f"{work}/plates/{routine.NAME}/{name}")
    hour.run(
        "trigger", "once", "--overlay", "params/demo.yaml", "--set", "adaptation.budget.iterations=8",
        "--ignore-source", "lab_a", "--work", f"{work}/work",
    )  # fmt: skip
    count = len(receiver.told)
    hour.say(f"The receiver got {count} message(s), signed; this is one (without `text`, the same for a chat):")
    for message in receiver.told[:1]:
        shown = {name: value for name, value in message.items() if name != "text"}  # the same again, for a chat
        hour.show(json.dumps(shown, indent=2), "json")
    hour.say("## What the pages say")
    hour.run("monitoring", "site", "--out", f"{work}/pages", "--reports")
    hour.say(PAGES)


def look(hour: Hour) -> None:
    """From numbers to the cause."""
    hour.say(
        "## The cause\n\nBright structures of every stain, of the whole batch and of the negative controls, per cent "
        "of the first four weeks:"
    )
    hour.python(LOOK)
    hour.say("Focus, cells, certainty and embedding:")
    hour.python(OTHERS)
    hour.say("The controls of the week that the page of controls marks:")
    hour.python(CONTROLS)


def decide(hour: Hour) -> None:
    """What is done about it."""
    hour.say(
        "Every stain loses the same share of its light, in treated wells and in both kinds of controls alike,\n"
        "week after week. A lot of dye would be one stain; cells or medium would move cells a field or the embedding;\n"
        "and a plate would be one week. What all stains of a microscope have in common is its lamp and its camera.\n"
        "(The number of focus rises a little, as noise does in dark pictures; a blurred picture's falls.)\n\n"
        "The plate whose positive control does not stand apart from the negative one is another matter.\n\n"
        "## The decision\n\nThe laboratory is asked to change the lamp. Nothing is rolled back: ingest scales each\n"
        "plate by its own percentiles, so certainty is as it was and the embedding no farther, and the gate kept what "
        "serves:"
    )
    hour.run("registry", "history", routine.NAME)
    week = routine.WEEKS + 1
    hour.say(
        "The truth, which a real laboratory has to look for (`simulation` in the manifests): the lamp gave\n"
        f"{routine.lamp(week):.0%} of its light in week {week}, and in week {routine.FAILED_WEEK} the positive "
        f"control's wells of plate {routine.FAILED_PLATE} got solvent."
    )


def main() -> None:
    demo, target = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    seed = int(demo.name.removeprefix("seed-"))
    with tempfile.TemporaryDirectory(prefix="hour-") as folder:
        work = Path(folder)
        with EmbeddedServices(demo / "services", images=demo / "plates") as services, Receiver() as receiver:
            environment = {**services.environment, "CODA_NOTIFY_URL": receiver.url, "CODA_NOTIFY_KEY": KEY}
            hour = Hour(environment, {str(demo): "runs/demo/seed-0", str(work): "/tmp/hour", receiver.url: "URL"})
            spend(hour, receiver, work, seed)
            look(hour)
            decide(hour)
            if len(sys.argv) > 3:
                shutil.copytree(work / "pages", sys.argv[3])
    target.write_text(hour.text.lstrip(), encoding="utf-8")


if __name__ == "__main__":
    main()
