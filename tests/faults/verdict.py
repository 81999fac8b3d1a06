"""What became of batch versions after a fault: asked of the services directly, and then of `coda doctor`.

The first part knows nothing of the library's checks: it lists objects and MLflow's versions and counts.
"""

import json
from collections import Counter

from mlflow import MlflowClient

from coda.doctor import examine, repair
from coda.storage.objects import store_for
from tests.faults.chain import PEAK
from tests.faults.standing import Platform
from tests.faults.tally import Tally


def assert_whole(
    platform: Platform, tally: Tally, *sources: str, versions: int = 1, found: tuple[str, ...] = ()
) -> str:
    """Count what is true of these sources, assert that nothing was lost, and return the outcome in words.

    Args:
        platform: The platform.
        tally: Where the figures are added.
        sources: Sources of the batches that met the fault.
        versions: Versions of its batch that each source sent.
        found: What the doctor may find and must then repair.
    """
    store = store_for(platform.settings.platform, platform.settings)
    accepted = once = lost = duplicated = 0
    states: Counter[str] = Counter()
    for source in sources:
        entries = platform.entries(source)
        assert len(entries) == versions
        releases = [json.loads(store.get(item.key)) for item in store.list(f"releases/{source}/")]
        for entry in entries:
            states[entry.last.state] += 1
            quality = json.loads(store.get(f"runs/{entry.last.run_id}/quality.json"))
            assert quality["verdict"] != "refused"
            accepted += 1
            made = sum(item["release"]["run_id"] == entry.last.run_id for item in releases)
            decided = entry.last.state in ("released", "incumbent_kept")
            # what was kept needs no release of its own, unless nothing served the source before
            needed = entry.last.state == "released" or len(entries) == 1
            once += decided and (made == 1 or (made == 0 and not needed))
            lost += not decided or (needed and made == 0)
            duplicated += made > 1
    orphans = orphan_versions(platform)
    tally.accepted += accepted
    tally.released_once += once
    tally.lost += lost
    tally.duplicated += duplicated
    tally.orphans += len(orphans)
    peaks = [int(path.read_text(encoding="utf-8")) for path in platform.folder.glob(f"work/*/*/{PEAK}")]
    tally.peak_kib = max([tally.peak_kib, *peaks])
    assert (once, lost, duplicated, orphans) == (accepted, 0, 0, []), platform.entries(*sources)
    told = _doctor(platform, found)
    ends = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    return f"{ends}; {told}"


def orphan_versions(platform: Platform) -> list[str]:
    """Return the MLflow versions that no release and no draft names."""
    store = store_for(platform.settings.platform, platform.settings)
    records = [json.loads(store.get(item.key))["release"] for item in store.list("releases/")]
    drafts = [item.key for item in store.list("runs/") if item.key.split("/")[2:] == ["release.json"]]
    records += [json.loads(store.get(key)) for key in drafts]
    named = {(ref["name"], int(ref["version"])) for item in records for ref in _models(item)}
    client = MlflowClient(platform.settings.mlflow_uri, platform.settings.mlflow_uri)
    known = [
        item for name in ("coda-extractor", "coda-head") for item in client.search_model_versions(f"name='{name}'")
    ]
    return [f"{item.name} {item.version}" for item in known if (item.name, int(item.version)) not in named]


def _models(record: dict) -> list[dict]:
    return [record["extractor"], record["head"], *record["heads"]]


def _doctor(platform: Platform, may_find: tuple[str, ...]) -> str:
    given = {"work": platform.folder / "work", "lease_s": 0.0, "abandoned_s": 0.0}
    first = examine(platform.settings, **given)
    assert first.releases > 0
    assert {item.check for item in first.findings} <= set(may_find), [str(item.problem) for item in first.findings]
    if not first.findings:
        return "doctor finds nothing"
    done = repair(first)
    again = examine(platform.settings, **given)
    assert not again.findings, [str(item.problem) for item in again.findings]
    kinds = Counter(item.check for item in first.findings)
    told = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in sorted(kinds.items()))
    return f"doctor repairs {told} ({len(done)} repairs), then finds nothing"
