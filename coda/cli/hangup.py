"""A terminal that is closed ends a command as Ctrl-C does: in order, with all that it started."""

import signal


def end_on_hangup() -> None:
    """Have SIGHUP and SIGTERM raise KeyboardInterrupt; a hangup that `nohup` put out of force stays so."""
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _interrupt)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
