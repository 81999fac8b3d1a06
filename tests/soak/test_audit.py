"""The audit of the soak finds what is planted, and nothing where nothing is."""

import json
from dataclasses import replace

import pytest

from tests.soak.audit import Left, Model, audit
from tests.soak.deliveries import GOOD, REPLACED, Fate, Sent

DIGEST = {name: letter * 64 for name, letter in (("b1", "a"), ("b2", "b"), ("b3", "c"))}
BAD = Fate(False, ("not JSON",))


def state(batch, sequence, name, *reasons):
    run_id = f"adapt-s-{batch}"
    return {"sequence": sequence, "state": name, "reasons": reasons, "run_id": run_id, "manifest_digest": DIGEST[batch]}


def key_of(batch, sequence):
    return f"ledger/s/{batch}/{DIGEST[batch][:16]}/states/{sequence:04d}.json"


def release(batch, version):
    model, head = {"name": "coda-extractor", "version": version}, {"name": "coda-head", "version": 1}
    run_id = f"adapt-s-{batch}"
    return {"release_id": run_id, "run_id": run_id, "method": "coda", "extractor": model, "head": head}


def world():
    """b1 is released, b2 keeps that release, b3 was refused."""
    documents = {key_of(batch, 1): state(batch, 1, "landed") for batch in ("b1", "b2")}
    documents |= {key_of("b1", 2): state("b1", 2, "released"), key_of("b2", 2): state("b2", 2, "incumbent_kept")}
    documents[key_of("b3", 1)] = state("b3", 1, "refused", "manifest: found not JSON: cut off")
    for batch, outcome in (("b1", "released"), ("b2", "incumbent_kept")):
        documents[f"runs/adapt-s-{batch}/run.json"] = {
            "run_id": f"adapt-s-{batch}", "outcome": outcome, "manifest_digests": [DIGEST[batch]],
            "release_id": "adapt-s-b1", "data": [{"revision": f"commit-{batch}"}],
        }  # fmt: skip
    documents["runs/adapt-s-b1/release.json"] = release("b1", 2)
    trained = {**release("b0", 1), "run_id": "train-1", "method": "source", "release_id": "train-1"}
    documents["releases/default/000001.json"] = {"scope": "default", "sequence": 1, "release": trained}
    documents["releases/s/000001.json"] = {"scope": "s", "sequence": 1, "release": release("b1", 2)}
    objects = {key: json.dumps(value).encode() for key, value in documents.items()}
    for batch in ("b1", "b2"):
        for name in ("0/field.parquet", "publications/000001.json"):
            objects[f"predictions/s/{batch}/adapt-s-b1/{name}"] = b""
    models = [Model("coda-extractor", 1, "train-1"), Model("coda-head", 1, "train-1")]
    models.append(Model("coda-extractor", 2, "adapt-s-b1"))
    commits = {"adapt-s-b1": 1, "adapt-s-b2": 1}
    return Left(objects, models, 0, commits, frozenset({"commit-b1", "commit-b2"}))


SENT = [Sent("s", batch, (DIGEST[batch], "f" * 64), fate) for batch, fate in (("b1", GOOD), ("b2", GOOD), ("b3", BAD))]


def changed(left, key, **values):
    """Return the world with one document changed, or written."""
    before = json.loads(left.objects.get(key, b"{}"))
    return replace(left, objects={**left.objects, key: json.dumps({**before, **values}).encode()})


def without(left, *keys):
    return replace(left, objects={key: body for key, body in left.objects.items() if key not in keys})


def test_a_world_in_order_is_clean():
    found = audit(world(), SENT)
    assert found.clean, found
    assert (found.accepted, found.released, found.kept, found.refused) == (2, 1, 1, 1)


PLANTED = {
    "never seen": ("lost", "not in the ledger", lambda left: without(left, key_of("b1", 1), key_of("b1", 2))),
    "still running": ("lost", "running", lambda left: changed(left, key_of("b1", 2), state="running")),
    "failed": ("lost", "failed", lambda left: changed(left, key_of("b1", 2), state="failed")),
    "a state is gone": ("lost", "a state is missing", lambda left: without(left, key_of("b1", 1))),
    "no record": ("lost", "without a record", lambda left: without(left, "runs/adapt-s-b1/run.json")),
    "no release": ("lost", "not in the release log", lambda left: without(left, "releases/s/000001.json")),
    "no predictions": (
        "lost", "predictions s/b2/adapt-s-b1: missing",
        lambda left: without(left, "predictions/s/b2/adapt-s-b1/publications/000001.json"),
    ),
    "no data": ("lost", "data revision", lambda left: replace(left, revisions=frozenset({"commit-b2"}))),
    "ended twice": (
        "duplicated", "ended 2 times",
        lambda left: changed(left, key_of("b1", 3), **state("b1", 3, "released")),
    ),
    "released twice": (
        "duplicated", "released 2 times",
        lambda left: changed(left, "releases/s/000002.json", scope="s", sequence=2, release=release("b1", 2)),
    ),
    "registered twice": (
        "duplicated", "2 versions of adapt-s-b1",
        lambda left: replace(left, models=[*left.models, Model("coda-extractor", 3, "adapt-s-b1")]),
    ),
    "versioned twice": (
        "duplicated", "versioned 2 times", lambda left: replace(left, commits={**left.commits, "adapt-s-b1": 2}),
    ),
    "a model of nobody": (
        "orphans", "version 3 of adapt-s-b2: in no release",
        lambda left: replace(left, models=[*left.models, Model("coda-extractor", 3, "adapt-s-b2")]),
    ),
    "a release of nobody": (
        "orphans", "of no accepted version",
        lambda left: changed(left, "releases/t/000001.json", scope="t", sequence=1, release=release("b9", 2)),
    ),
    "predictions of nobody": (
        "orphans", "predictions s/b2/other: of no accepted version",
        lambda left: changed(left, "predictions/s/b2/other/publications/000001.json"),
    ),
    "a gap in the log": (
        "lost", "entries [2]",
        lambda left: changed(left, "releases/s/000001.json", sequence=2),
    ),
    "refused for another reason": (
        "surprises", "another reason", lambda left: changed(left, key_of("b3", 1), reasons=["no controls"]),
    ),
    "refused though good": (
        "surprises", "another reason", lambda left: changed(left, key_of("b1", 2), state="refused"),
    ),
    "accepted though bad": (
        "surprises", "had to be refused", lambda left: changed(left, key_of("b3", 1), state="released"),
    ),
    "a version of nobody": (
        "surprises", "nobody sent it",
        lambda left: changed(left, f"ledger/s/b8/{'e' * 16}/states/0001.json", **state("b1", 1, "landed")),
    ),
    "another outcome": (
        "surprises", "differ", lambda left: changed(left, "runs/adapt-s-b1/run.json", outcome="held"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PLANTED)
def test_what_is_planted_is_found(case):
    where, words, plant = PLANTED[case]
    found = audit(plant(world()), SENT)
    assert not found.clean
    assert any(words in sentence for sentence in getattr(found, where)), found


def test_a_version_that_was_replaced_may_end_either_way():
    sent = [Sent("s", "b1", (DIGEST["b1"], "f" * 64), REPLACED), *SENT[1:]]
    assert audit(world(), sent).clean
    refused = changed(world(), key_of("b1", 2), state="refused", reasons=["the manifest was removed or replaced"])
    assert audit(refused, sent).refused == 2


def test_a_failed_version_that_was_opened_again_ends_once():
    left = changed(world(), key_of("b1", 2), state="failed")
    left = changed(left, key_of("b1", 3), **state("b1", 3, "landed"))
    left = changed(left, key_of("b1", 4), **state("b1", 4, "released"))
    assert audit(left, SENT).clean
