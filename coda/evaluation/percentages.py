"""Percentages for people: a share that misses its limit never reads like the limit."""

MOST_DIGITS = 15
"""Digits after which two doubles in [0, 1] are told apart, or nearly equal."""


def against(found: float, limit: float) -> tuple[str, str]:
    """Return a share and the limit it was held against in percent, with as many digits as it takes to tell them apart.

    Returns:
        Both in percent: ``('60.4%', '60.0%')`` where whole percents would say "takes 60%; at most 60%"; plain whole
        percents where these differ, or where both numbers are equal.
    """
    digits = 0
    while found != limit and digits < MOST_DIGITS and f"{found:.{digits}%}" == f"{limit:.{digits}%}":
        digits += 1
    return f"{found:.{digits}%}", f"{limit:.{digits}%}"
