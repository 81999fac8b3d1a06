"""The figures of a soak: for people as a table, for other programs as JSON."""

from typing import Any

from tests.soak.soak import Outcome


def summary_of(outcome: Outcome) -> dict[str, Any]:
    """Return the figures as JSON values."""
    found, life = outcome.findings, outcome.life
    settled = life.settled or life.weights
    slope = life.slope_mib_per_hour()
    return {
        "batches": sum(outcome.delivered.values()),
        "planned": outcome.size.batches,
        "sources": outcome.size.sources,
        "seed": outcome.size.seed,
        "seconds": round(outcome.seconds),
        "delivered": dict(outcome.delivered),
        "injected": sum(outcome.injected.values()),
        "kinds": dict(sorted(outcome.injected.items())),
        "faulty_requests": sum(outcome.requests.values()),
        "accepted": found.accepted,
        "released_once": found.released_once,
        "released": found.released,
        "incumbent_kept": found.kept,
        "refused": found.refused,
        "lost": len(found.lost),
        "duplicated": len(found.duplicated),
        "orphans": len(found.orphans),
        "surprises": len(found.surprises),
        "unversioned_packages": found.unversioned,
        "opened_again": outcome.opened_again,
        "repeated_runs": outcome.repeated_runs,
        "taken_over": outcome.taken_over,
        "triggers": outcome.triggers,
        "peak_rss_mib": round(outcome.peak_rss_mib, 1),
        "watched_life": {
            "seconds": round(settled[-1].at if settled else 0),
            "rss_mib": [round(weight.rss_mib, 1) for weight in (settled[:1] + settled[-1:])],
            "slope_mib_per_hour": None if slope is None else round(slope, 2),
            "open_files": [weight.files for weight in (settled[:1] + settled[-1:])],
        },
        "findings": found.lost + found.duplicated + found.orphans + found.surprises,
    }


def table_of(outcome: Outcome) -> str:
    """Return the figures as lines for people."""
    summary = summary_of(outcome)
    of = "" if summary["batches"] == summary["planned"] else f" (of {summary['planned']} planned: time was up)"
    lines = [f"{summary['batches']} batches{of} from {summary['sources']} sources, seed {summary['seed']}:"]
    lines += [f"  {summary['seconds']} s; delivered: " + _listed(summary["delivered"])]
    lines += ["", f"  {'fault':<28} {'times':>5}", *(f"  {kind:<28} {n:>5}" for kind, n in summary["kinds"].items())]
    lines += [f"  {'in all':<28} {summary['injected']:>5}   ({summary['faulty_requests']} requests met one)", ""]
    names = (
        "accepted", "released_once", "released", "incumbent_kept", "refused", "lost", "duplicated", "orphans",
        "surprises", "unversioned_packages", "opened_again", "repeated_runs", "taken_over", "triggers", "peak_rss_mib",
    )  # fmt: skip
    lines += [f"  {name.replace('_', ' '):<28} {summary[name]:>7}" for name in names]
    life = summary["watched_life"]
    lines += [
        f"  longest trigger life: {life['seconds']} s, memory {life['rss_mib']} MiB from warm-up to end,"
        f" slope {life['slope_mib_per_hour']} MiB/h, open files {life['open_files']}"
    ]
    return "\n".join([*lines, *(f"  ! {sentence}" for sentence in summary["findings"])])


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items(), key=lambda item: -item[1]))
