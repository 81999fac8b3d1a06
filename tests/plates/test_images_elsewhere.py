"""Ingest of a manifest whose images lie elsewhere: read where the operator allows, and nowhere else."""

from multiprocessing.reduction import ForkingPickler

import pytest
from batches import SETTINGS, deliver

from coda.errors import ContractError
from coda.plates.batch_files import LocalFiles
from coda.plates.dataset import open_batches
from coda.plates.split_files import SplitFiles
from coda.steps.ingest import ingest

HALF = "quality.plate_quorum=0.5"


def parted(tmp_path, images_at=None, **options):
    """A delivery whose tables and manifest lie in 'landing' and whose images lie in 'scope'."""
    delivery = deliver(tmp_path / "landing", **options)
    scope = tmp_path / "scope"
    (scope / "images").parent.mkdir(parents=True, exist_ok=True)
    (delivery.folder / "images").rename(scope / "images")
    delivery.manifest["images_at"] = images_at or str(scope)
    delivery.write()
    return delivery, scope


def settings_of(**changes):
    return SETTINGS.model_copy(update=changes)


def test_images_of_an_allowed_folder_are_read_there(tmp_path, small_params):
    delivery, scope = parted(tmp_path)
    whole = deliver(tmp_path / "whole")
    (report,) = ingest([delivery.uri], tmp_path / "a", params=small_params(),
                       settings=settings_of(image_roots=str(scope)))  # fmt: skip
    ingest([whole.uri], tmp_path / "b", params=small_params(), settings=SETTINGS)
    assert (report.fields_accepted, report.delivered) == (8, True)
    (one,), (other,) = open_batches(tmp_path / "a"), open_batches(tmp_path / "b")
    assert (one.path / "index.parquet").read_bytes() == (other.path / "index.parquet").read_bytes()


def test_a_manifest_cannot_have_other_places_read(tmp_path, small_params):
    delivery, scope = parted(tmp_path)
    (tmp_path / "secret").mkdir()
    for place in (str(scope), "/", "s3://platform/releases", f"{scope}/../secret"):
        delivery.manifest["images_at"] = place
        delivery.write()
        with pytest.raises(ContractError, match="CODA_IMAGE_ROOTS") as caught:
            ingest([delivery.uri], tmp_path / "out", params=small_params(),
                   settings=settings_of(image_roots=f"{scope}-2,unsigned+s3://open"))  # fmt: skip
        assert delivery.uri in str(caught.value)
        assert not (tmp_path / "out").exists()


def test_links_and_tables_do_not_lead_out_of_the_allowed_folder(tmp_path, small_params):
    delivery, scope = parted(tmp_path)
    image = scope / delivery.images()[0]
    outside = tmp_path / "outside.tiff"
    image.rename(outside)
    image.symlink_to(outside)
    (report,) = ingest([delivery.uri], tmp_path / "a", params=small_params(HALF),
                       settings=settings_of(image_roots=str(scope)))  # fmt: skip
    assert report.fields_accepted == 7
    # tables are read beside the manifest alone, also when the other place has files of their names
    table = delivery.folder / delivery.manifest["plates"][0]["plate_map"]
    (scope / "platemaps").mkdir()
    table.rename(scope / "platemaps" / table.name)
    (report,) = ingest([delivery.uri], tmp_path / "b", params=small_params(HALF),
                       settings=settings_of(image_roots=str(scope)))  # fmt: skip
    assert report.fields_accepted == 0
    assert "was not delivered" in report.problems[0].found


def test_all_wrong_manifests_of_a_call_are_told_together(tmp_path, small_params):
    first, _ = parted(tmp_path / "1", images_at="s3://nobody/allowed")
    second, _ = parted(tmp_path / "2", images_at="/etc", batch="b2")
    with pytest.raises(ContractError) as caught:
        ingest([first.uri, second.uri], tmp_path / "out", params=small_params(HALF), settings=SETTINGS)
    assert [problem.found for problem in caught.value.problems] == ["s3://nobody/allowed", "/etc"]


def test_images_in_another_bucket_than_the_manifest(moto_server, tmp_path, small_params):
    landing, scope = moto_server.bucket(), moto_server.bucket()
    delivery, folder = parted(tmp_path, images_at=f"{scope.uri}/raw")
    landing.upload_folder(delivery.folder, "lab_a/b1")
    scope.upload_folder(folder, "raw")
    settings = settings_of(s3_endpoint=moto_server.endpoint, image_roots=f"{scope.uri}/raw")
    uri = f"{landing.uri}/lab_a/b1/manifest.json"
    (report,) = ingest([uri], tmp_path / "out", params=small_params(HALF), settings=settings)
    assert (report.fields_accepted, report.delivered) == (8, True)
    scope.delete(f"raw/{delivery.images()[0]}")
    (report,) = ingest([uri], tmp_path / "again", params=small_params(HALF), settings=settings)
    assert report.fields_accepted == 7
    assert "not delivered" in report.quarantined[0].reason


def test_a_public_bucket_is_read_without_the_pipelines_credentials(moto_server, tmp_path, small_params):
    scope = moto_server.bucket()
    delivery, folder = parted(tmp_path, images_at=scope.uri, sites=1)
    for path in folder.rglob("*.tiff"):
        key = path.relative_to(folder).as_posix()
        scope.client.put_object(Bucket=scope.bucket, Key=key, Body=path.read_bytes(), ACL="public-read")
    roots = f"unsigned+{scope.uri}#{moto_server.endpoint}"
    # the platform's own service is another one, and away
    settings = settings_of(s3_endpoint="http://127.0.0.1:9", image_roots=roots)
    (report,) = ingest([delivery.uri], tmp_path / "out", params=small_params("ingest.illumination.min_fields=2"),
                       settings=settings)  # fmt: skip
    assert (report.fields_accepted, report.delivered) == (4, True)


def test_split_files_can_be_sent_to_a_worker_process(tmp_path):
    for place, text in (("a", "table"), ("b", "image")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "x").write_text(text)
        (tmp_path / place / "y").write_text(text * 2)
    files = SplitFiles(LocalFiles(tmp_path / "a"), LocalFiles(tmp_path / "b"), {"x"})
    copy = ForkingPickler.loads(ForkingPickler.dumps(files))
    assert (copy.read("x", at_most=9), copy.read("y", at_most=99), copy.size("x"), copy.size("y"), copy.size("z")) == (
        b"table", b"imageimage", 5, 10, None
    )  # fmt: skip
