"""The IAM policies as files: well-formed, narrow, complete, and read alike by two evaluators."""

import json

import pytest
from moto.iam.access_control import IAMPolicy, PermissionResult

from pipelines.resources import Rights
from tests.iam import Ask, asks_of, permitted, read_policy

PLATFORM, LANDING = "arn:aws:s3:::coda-platform", "arn:aws:s3:::coda-landing"
CREATE = {"s3:if-none-match": "*", "aws:SecureTransport": "true"}
TLS = {"aws:SecureTransport": "true"}


@pytest.fixture(scope="module")
def policies(root):
    return {path.stem: read_policy(path) for path in sorted((root / "k8s" / "iam").glob("*.json"))}


@pytest.fixture(scope="module")
def identities(policies):
    return {name: rules for name, rules in policies.items() if not name.startswith("bucket-")}


@pytest.fixture(scope="module")
def of_buckets(policies):
    return [rule for name, rules in policies.items() if name.startswith("bucket-") for rule in rules]


def test_there_is_a_policy_for_every_class_of_steps_and_every_service(identities):
    assert set(identities) == {*Rights.__args__, "trigger", "mlflow", "producer"}


def test_no_policy_has_a_wild_action_or_a_whole_bucket_to_write(identities):
    for name, rules in identities.items():
        for rule in rules:
            assert "*" not in "".join(rule["Action"]), name
            if {"s3:PutObject", "s3:DeleteObject"} & set(rule["Action"]):
                assert not [place for place in rule["Resource"] if place in (f"{PLATFORM}/*", f"{LANDING}/*")], name


ANYWHERE = [
    "releases/lab_b/000001.json", "ledger/lab_b/b1/x/claim.json", "labels/mechanisms.csv", "dvc/files/md5/ab/cd",
    "plates/ab/record.json",
    "runs/r1/run.json", "predictions/lab_b/b1/r1/field.parquet", "reports/lab_b/b1/x/report.html",
    "mlflow/1/models/x", "checkpoints/r1/adapt/1/x", "runs/r1/gate.json", "runs/r1/release.json", "index/releases.json",
    "runs/r1/failed.json", "runs/r1/failure.html", "notifications/lab_b/b1/x/0001-held.json",
]  # fmt: skip

MAY_DELETE = {
    ("train", "checkpoints/r1/adapt/1/x"), ("mlflow", "mlflow/1/models/x"),
    ("trigger", "ledger-open/lab_b/b1/x/0001-ab"),
}  # fmt: skip
MAY_WRITE = {
    # plate stores as they are finished, and the small files and lists of a version; content is checked on every read
    "dvc/files/md5/ab/cd": {"version", "intake"}, "plates/ab/record.json": {"intake"},
    "runs/r1/failed.json": {"report"}, "runs/r1/failure.html": {"report"},
    "runs/r1/run.json": {"report"}, "runs/r1/gate.json": {"gate"},
    "runs/r1/release.json": {"register"}, "predictions/lab_b/b1/r1/field.parquet": {"predict"},
    "reports/lab_b/b1/x/report.html": {"report"}, "mlflow/1/models/x": {"mlflow"},
    "checkpoints/r1/adapt/1/x": {"train"}, "ledger/lab_b/b1/x/claim.json": {"trigger"}, "labels/mechanisms.csv": set(),
    "releases/lab_b/000001.json": set(), "notifications/lab_b/b1/x/0001-held.json": set(),
    "index/releases.json": {"release"},
}  # fmt: skip
MAY_CREATE = {"releases/lab_b/000001.json": {"release"}, "notifications/lab_b/b1/x/0001-held.json": {"trigger"}}


@pytest.mark.parametrize("key", ANYWHERE)
def test_one_class_alone_writes_each_place_and_hardly_any_deletes(key, identities, of_buckets):
    def may(action, context):
        ask = Ask(action, f"{PLATFORM}/{key}", context)
        return {name for name, rules in identities.items() if permitted(rules, of_buckets, ask)}

    assert may("s3:PutObject", TLS) == MAY_WRITE[key]
    assert {(name, key) for name in may("s3:DeleteObject", TLS)} == {item for item in MAY_DELETE if item[1] == key}
    assert may("s3:PutObject", CREATE) == MAY_WRITE[key] | MAY_CREATE.get(key, set())
    assert may("s3:GetObject", {"aws:SecureTransport": "false"}) == set()


def test_only_producers_write_deliveries_and_only_their_own(identities, of_buckets):
    for key, writers in (("source_5/b1/a.tiff", {"producer"}), ("source_50/b1/a.tiff", set())):
        ask = Ask("s3:PutObject", f"{LANDING}/{key}", TLS)
        assert {name for name, rules in identities.items() if permitted(rules, of_buckets, ask)} == writers
    reads = Ask("s3:GetObject", f"{LANDING}/source_5/b1/a.tiff", TLS)
    assert {name for name, rules in identities.items() if permitted(rules, of_buckets, reads)} == {"intake", "trigger"}


def test_nobody_deletes_or_overwrites_releases_even_with_every_right(of_buckets):
    everything = [{"Effect": "Allow", "Action": ["s3:*"], "Resource": ["*"]}]
    place = f"{PLATFORM}/releases/default/000001.json"
    assert not permitted(everything, of_buckets, Ask("s3:DeleteObject", place, TLS))
    assert not permitted(everything, of_buckets, Ask("s3:DeleteObjectVersion", place, TLS))
    assert not permitted(everything, of_buckets, Ask("s3:PutObject", place, TLS))
    assert permitted(everything, of_buckets, Ask("s3:PutObject", place, CREATE))


@pytest.mark.parametrize("key", ANYWHERE)
def test_another_evaluator_reads_the_policies_alike(key, identities):
    """moto's: it knows no conditions of S3, so statements with conditions are left out of the comparison."""
    for name, rules in identities.items():
        plain = [rule for rule in rules if "Condition" not in rule]
        theirs = IAMPolicy(json.dumps({"Version": "2012-10-17", "Statement": plain}))
        for action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"):
            for place in (f"{PLATFORM}/{key}", f"{LANDING}/{key}"):
                said = theirs.is_action_permitted(action, place) == PermissionResult.PERMITTED
                assert said == permitted(plain, [], Ask(action, place)), (name, action, place)


@pytest.mark.parametrize(
    ("method", "target", "headers", "action", "resource"),
    [
        ("GET", "/b/a%20b/c", {}, "s3:GetObject", "arn:aws:s3:::b/a b/c"),
        ("HEAD", "/b/k", {}, "s3:GetObject", "arn:aws:s3:::b/k"),
        ("PUT", "/b/k", {}, "s3:PutObject", "arn:aws:s3:::b/k"),
        ("POST", "/b/k?uploads", {}, "s3:PutObject", "arn:aws:s3:::b/k"),
        ("PUT", "/b/k?partNumber=1&uploadId=x", {}, "s3:PutObject", "arn:aws:s3:::b/k"),
        ("DELETE", "/b/k?uploadId=x", {}, "s3:AbortMultipartUpload", "arn:aws:s3:::b/k"),
        ("DELETE", "/b/k", {}, "s3:DeleteObject", "arn:aws:s3:::b/k"),
        ("GET", "/b?list-type=2&prefix=x", {}, "s3:ListBucket", "arn:aws:s3:::b"),
        ("GET", "/b?location", {}, "s3:GetBucketLocation", "arn:aws:s3:::b"),
        ("PUT", "/b", {}, "s3:CreateBucket", "arn:aws:s3:::b"),
    ],
)
def test_requests_are_understood(method, target, headers, action, resource):
    (ask,) = asks_of(method, target, headers)
    assert (ask.action, ask.resource) == (action, resource)


def test_deleting_many_and_copying_ask_for_each_object():
    body = b"<Delete><Object><Key>a</Key></Object><Object><Key>b</Key></Object></Delete>"
    assert [ask.resource for ask in asks_of("POST", "/x?delete", {}, body)] == ["arn:aws:s3:::x/a", "arn:aws:s3:::x/b"]
    copied = asks_of("PUT", "/x/new", {"X-Amz-Copy-Source": "/y/secret"})
    assert [(ask.action, ask.resource) for ask in copied] == [
        ("s3:PutObject", "arn:aws:s3:::x/new"), ("s3:GetObject", "arn:aws:s3:::y/secret"),
    ]  # fmt: skip


def test_the_evaluator_refuses_what_it_does_not_know(tmp_path):
    odd = [{"Effect": "Allow", "Action": ["s3:*"], "Resource": ["*"], "Condition": {"IpAddress": {"x": "y"}}}]
    with pytest.raises(ValueError, match="IpAddress"):
        permitted(odd, [], Ask("s3:GetObject", "x"))
    (tmp_path / "p.json").write_text(
        json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "NotAction": []}]})
    )
    with pytest.raises(AssertionError):
        read_policy(tmp_path / "p.json")
