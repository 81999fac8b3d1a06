"""Progress of steps that count: lines of a log, and silence where nothing takes long."""

from coda.steps.counting import counted


def test_a_log_gets_a_line_every_tenth(capsys):
    with counted("Reading", unit="fields", quiet_s=0) as report:
        for done in range(1, 101):
            report(done, 100, "lab/b1: plate p1")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("Reading lab/b1: plate p1: 10/100 fields, ")
    assert "s left" in lines[0]


def test_what_is_soon_over_says_nothing(capsys):
    with counted("Reading", unit="fields") as report:
        report(1, 1, "lab/b1")
    assert capsys.readouterr().err == ""


def test_a_step_that_goes_on_counts_its_own_speed(capsys):
    with counted("Reading", unit="fields", quiet_s=0) as report:
        report(90, 100, "")
        report(91, 100, "")
    assert "90/100 fields, 0.0 a second\n" in capsys.readouterr().err
