"""Programs of the warm worker are what `python -m` would have run: output, exit code, environment, signals, memory."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from coda.warm.asking import run, worker

MODULES = ("json", "numpy")


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Write a module that programs can be made of, and return its name."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(__file__).resolve().parents[2])]))
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")

    def write(code, name="planted_program"):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(code))
        return name

    return write


def outcome(asker, command, tmp_path, **variables):
    """Run a program by the worker, and return its exit code, standard output and standard error."""
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        env = {**os.environ, **variables}
        code = asker.start(command, env=env, cwd=tmp_path, out=out.fileno(), err=err.fileno()).wait()
    return code, (tmp_path / "out").read_text(), (tmp_path / "err").read_text()


def cold(command, tmp_path, **variables):
    """Run a program in a fresh interpreter: the oracle."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=tmp_path, env={**os.environ, **variables}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


ENDINGS = {
    "returns": "print('done')",
    "exit code": "raise SystemExit(3)",
    "words": "raise SystemExit('a reason')",
    "none": "import sys; sys.exit()",
    "exception": "def f():\n    raise ValueError('unforeseen')\nf()",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "terminated": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "interrupted": "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(9)",
    "exit handlers": "import atexit, threading, time\natexit.register(print, 'handler')\n"
    "threading.Thread(target=lambda: (time.sleep(.1), print('thread'))).start()\nprint('main')",
    "arguments": "import os, sys; print(sys.argv[1:], os.environ['COLOUR'], __name__)",
    "place": "import os, sys; print(os.getcwd(), sys.path[0])",
    "unflushed": "import sys; sys.stdout.write('no line end'); sys.stderr.write('e')",
    "spawns": "from multiprocessing import get_context\ndef f(x):\n    return x + 1\n"
    "if __name__ == '__main__':\n    with get_context('spawn').Pool(1) as pool:\n        print(pool.map(f, [1, 2]))",
}


def test_programs_end_as_a_fresh_interpreter_ends(program, tmp_path):
    with worker(MODULES, tmp_path / "log") as asker:
        for name, code in ENDINGS.items():
            command = [program(code, f"program_{name.replace(' ', '_')}"), "a b", "--c"]
            warm_end = outcome(asker, command, tmp_path, COLOUR="red")
            cold_end = cold(command, tmp_path, COLOUR="red")
            if name in ("exception", "interrupted"):  # tracebacks differ in the frames of the one who starts
                assert warm_end[2].splitlines()[-1:] == cold_end[2].splitlines()[-1:]
                warm_end, cold_end = warm_end[:2], cold_end[:2]
            assert warm_end == cold_end, name
    assert (tmp_path / "log").read_text() == ""


@pytest.mark.parametrize(
    ("modules", "variables", "warm"),
    [
        ((), {}, "warm"),
        ((), {"COLOUR": "red"}, "warm"),
        ((), {"LC_ALL": "C.UTF-8"}, "warm"),
        ((), {"LC_ALL": "de_DE.ISO-8859-1"}, "cold"),
        ((), {"OMP_NUM_THREADS": "7"}, "cold"),
        ((), {"PYTHONHASHSEED": "5"}, "cold"),
        (("planted_failing",), {}, "cold"),
        (("planted_thread",), {}, "cold"),
    ],
)
def test_what_must_not_be_shared_is_started_afresh(program, tmp_path, modules, variables, warm):
    program("raise RuntimeError('half imported')", "planted_failing")
    program("import threading, time\nthreading.Thread(target=time.sleep, args=(30,), daemon=True).start()",
            "planted_thread")  # fmt: skip
    name = program("import sys; print('warm' if 'coda.warm.wire' in sys.modules else 'cold')")
    with worker(modules, tmp_path / "log") as asker:
        if modules:
            outcome(asker, [name], tmp_path)  # the worker has imported by the time of the second
            time.sleep(0.5)
        assert outcome(asker, [name], tmp_path, **variables) == (0, f"{warm}\n", "")
    assert ("half imported" in (tmp_path / "log").read_text()) == (modules == ("planted_failing",))


def test_nothing_of_a_program_is_left_for_the_next(program, tmp_path):
    name = program(
        """
        import json, os, sys, numpy
        print(os.environ.get("LEFT"), hasattr(json, "left"), numpy.random.random(), os.getcwd())
        os.environ["LEFT"] = json.left = "x"
        os.chdir("/")
        held = numpy.ones(40_000_000)
        """
    )
    with worker(MODULES, tmp_path / "log") as asker:
        first, second = (outcome(asker, [name], tmp_path) for _ in range(2))
    for code, text, words in (first, second):
        assert (code, words) == (0, "")
        assert text.startswith("None False ")
        assert text.endswith(f"{tmp_path}\n")
    assert first[1] != second[1], "two programs drew the same random numbers"


def test_a_program_may_ask_for_another_one(program, tmp_path):
    program("import os, sys; print('inner', os.getppid()); print('e', file=sys.stderr); sys.exit(4)", "inner")
    name = program(
        """
        import os
        from pathlib import Path
        from coda.warm.asking import run
        for _ in range(2):
            done = run(["inner"], cwd=Path.cwd(), env=os.environ, timeout_s=30)
            print(done.returncode, done.stdout.split()[0], done.stderr, int(done.stdout.split()[1]) == os.getppid())
        """
    )
    with worker((), tmp_path / "log") as asker:
        assert outcome(asker, [name], tmp_path) == (0, "4 inner e\n True\n" * 2, "")


def test_without_a_worker_programs_are_started_as_ever(program, tmp_path):
    name = program("import sys; print('out'); sys.exit(5)")
    done = run([name], cwd=tmp_path, env=os.environ, timeout_s=30)
    assert (done.returncode, done.stdout, done.stderr) == (5, "out\n", "")


@pytest.mark.parametrize("inside", [True, False])
def test_what_takes_too_long_is_killed(program, tmp_path, inside):
    program("import time; time.sleep(60)", "slow")
    name = program(
        """
        import os, subprocess
        from pathlib import Path
        from coda.warm.asking import run
        try:
            run(["slow"], cwd=Path.cwd(), env=os.environ, timeout_s=0.5)
        except subprocess.TimeoutExpired:
            print("late")
        """
    )
    with worker((), tmp_path / "log") as asker:
        end = outcome(asker, [name], tmp_path) if inside else cold([name], tmp_path)
    assert end == (0, "late\n", "")


def test_a_killed_worker_takes_its_program_along_and_is_told(program, tmp_path):
    name = program("import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getppid())); time.sleep(60)")
    with worker((), tmp_path / "log") as asker, (tmp_path / "out").open("wb") as out:
        started = asker.start([name], env=os.environ, cwd=tmp_path, out=out.fileno(), err=out.fileno())
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.02)
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        assert started.wait() == -signal.SIGKILL
        with pytest.raises(ConnectionError):
            asker.start([name], env=os.environ, cwd=tmp_path, out=out.fileno(), err=out.fileno())
    assert _gone(started.pid)


def test_the_worker_ends_with_the_process_that_started_it(program, tmp_path):
    name = program(
        """
        import os, sys, time
        from pathlib import Path
        from coda.warm.asking import worker
        with worker((), Path("log")) as asker:
            print(asker.start(["who"], env=os.environ, cwd=Path.cwd(), out=1, err=2).wait(), flush=True)
            os.kill(os.getpid(), 9)
        """
    )
    program("import os; print(os.getppid())", "who")
    done = subprocess.run([sys.executable, "-m", name], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert _gone(int(done.stdout.split()[0]))


def _gone(pid):
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True  # nobody has asked how it ended
        time.sleep(0.05)
    return False
