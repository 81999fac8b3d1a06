"""Names in two Unicode normal forms mean one file; two files that differ in nothing else are never exchanged."""

import json
import unicodedata

import pytest
from batches import SETTINGS, deliver
from hypothesis import given
from hypothesis import strategies as st
from lying import drafted, lay, published

from coda.contracts import BatchManifest
from coda.plates.batch_files import LocalFiles
from coda.plates.file_references import FileResolver
from coda.plates.manifests.check import check
from coda.plates.manifests.places import LocalPlace
from coda.plates.name_forms import AlikeNamesError, absent, by_form, matched, spelled
from coda.steps.ingest import ObjectFiles, ingest
from coda.storage import ObjectStore
from coda.storage.trees import ObjectTree

NAME = "Größe/α-Tubulin/é.tif"
FORMS = {form: unicodedata.normalize(form, NAME) for form in ("NFC", "NFD")}
BOTH = [("NFC", "NFD"), ("NFD", "NFC")]
LETTERS = st.text("aoeöéü\u0308\u0301/", min_size=1, max_size=5)


@given(st.lists(LETTERS, max_size=8), st.lists(LETTERS, max_size=8))
def test_a_name_means_itself_or_the_only_one_like_it_and_no_file_serves_twice(wanted, stored):
    found = matched(wanted, stored)
    assert len(set(found.values())) == len(found)
    for name in set(wanted):
        alike = {other for other in stored if unicodedata.normalize("NFC", other) == unicodedata.normalize("NFC", name)}
        if name in stored:
            assert found[name] == name
        elif name in found:
            assert alike == {found[name]}
        elif len(alike) == 1:
            # the only one like it means another wanted name, or two want it alike
            rivals = [other for other in set(wanted) - {name}
                      if unicodedata.normalize("NFC", other) == unicodedata.normalize("NFC", name)]  # fmt: skip
            assert rivals


@pytest.mark.parametrize(("asked", "stored"), BOTH)
def test_a_table_may_write_names_in_the_other_form(asked, stored):
    names = [FORMS[stored], FORMS[stored].replace("é", "ü").replace("e\u0301", "u\u0308")]
    resolver = FileResolver(names)
    assert resolver.resolve(f"/mnt/{FORMS[asked]}") == names[0]
    assert resolver.resolve(FORMS[asked]) == names[0]


def test_of_two_files_that_look_alike_a_table_means_the_one_it_writes_exactly():
    resolver = FileResolver(FORMS.values())
    for name in FORMS.values():
        assert resolver.resolve(name) == name
    composed, decomposed = (unicodedata.normalize(form, "é-ü.tif") for form in ("NFC", "NFD"))
    mixed = composed[:2] + decomposed[3:]
    resolver = FileResolver([f"a/{composed}", f"a/{mixed}"])
    assert [resolver.resolve(f"a/{name}") for name in (composed, mixed)] == [f"a/{composed}", f"a/{mixed}"]
    with pytest.raises(LookupError, match="whose names look alike") as caught:
        resolver.resolve(f"a/{decomposed}")
    assert all(spelled(f"a/{name}") in str(caught.value) for name in (composed, mixed, decomposed))


def places(kind, moto_server, tmp_path, names):
    """Return files and tree of a place that holds some names, each with its own number as content."""
    if kind == "folder":
        for number, name in enumerate(names):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(str(number).encode())
        return LocalFiles(tmp_path), LocalPlace(tmp_path)
    store = ObjectStore(f"{moto_server.bucket().uri}/b", moto_server.endpoint)
    for number, name in enumerate(names):
        store.put(name, str(number).encode())
    return ObjectFiles(store), ObjectTree(store)


@pytest.mark.parametrize("kind", ["folder", "bucket"])
@pytest.mark.parametrize(("asked", "stored"), BOTH)
def test_the_file_is_read_by_the_name_that_it_is_stored_under(kind, asked, stored, moto_server, tmp_path):
    files, _ = places(kind, moto_server, tmp_path, [FORMS[stored], "Größe/other.tif"])
    assert files.read(FORMS[asked], at_most=9) == b"0"
    assert files.size(FORMS[asked]) == 1
    assert files.size(FORMS[asked].replace("α", "β")) is None
    with pytest.raises(FileNotFoundError):
        files.read(FORMS[asked].replace("α", "β"), at_most=9)


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_two_files_that_look_alike_are_told_apart_or_not_read_at_all(kind, moto_server, tmp_path):
    mixed = unicodedata.normalize("NFD", "Größe") + "/" + NAME.partition("/")[2]
    files, _ = places(kind, moto_server, tmp_path, [FORMS["NFC"], mixed])
    assert files.read(FORMS["NFC"], at_most=9) == b"0"
    assert files.read(mixed, at_most=9) == b"1"
    with pytest.raises(AlikeNamesError) as caught:
        files.read(FORMS["NFD"], at_most=9)
    assert all(spelled(name) in caught.value.reason for name in (FORMS["NFD"], FORMS["NFC"], mixed))
    assert "(NFC)" in caught.value.reason
    assert "(neither NFC nor NFD)" in caught.value.reason
    assert absent(FORMS["NFD"], by_form([FORMS["NFC"]])) == f"{spelled(FORMS['NFD'])}, where there is '{NAME}' (NFC)"


def renamed(delivery, form, tables):
    """Put a delivery's images into folders with such names on disk, and say so in manifest and table in one form."""
    for plate in delivery.manifest["plates"]:
        for entry in plate["files"]:
            if entry["path"].startswith("images/"):
                entry["path"] = unicodedata.normalize(form, entry["path"].replace("images/", "images/Größe é/"))
    (delivery.folder / "images").rename(delivery.folder / "moved")
    (delivery.folder / "images").mkdir()
    (delivery.folder / "moved").rename(delivery.folder / "images" / unicodedata.normalize("NFD", "Größe é"))
    path = delivery.manifest["plates"][0]["load_data"]
    text = (delivery.folder / path).read_text()
    delivery.put(path, unicodedata.normalize(tables, text.replace("images/", "images/Größe é/")).encode())
    delivery.write()


@pytest.mark.parametrize(("manifest", "tables"), [("NFC", "NFC"), ("NFC", "NFD"), ("NFD", "NFC")])
def test_a_batch_from_a_mac_is_checked_and_ingested_whole(manifest, tables, small_params, tmp_path):
    delivery = deliver(tmp_path / "in", sites=2)
    renamed(delivery, manifest, tables)
    found = check(BatchManifest.read(delivery.folder / "manifest.json"), LocalPlace(delivery.folder), None, digests=1)
    assert found.findings == ()
    assert found.read == found.files
    (report,) = ingest([delivery.uri], tmp_path / "out", params=small_params(), settings=SETTINGS)
    assert (report.fields_accepted, report.quarantined, report.problems) == (8, (), ())


def test_a_manifest_is_built_with_the_names_as_stored_whatever_form_the_table_writes(tmp_path):
    folder, place = tmp_path / "b1", LocalPlace(tmp_path / "b1")
    lay(folder, sites=1, shape=(16, 16))
    for image in list((folder / "images").rglob("*.tiff")):
        image.rename(image.with_name(unicodedata.normalize("NFD", image.name.replace("_s1_", "_s1_é_"))))
    table = folder / "all_load_data.csv"
    table.write_text(unicodedata.normalize("NFC", table.read_text().replace("_s1_", "_s1_é_")))
    built = drafted(place, folder)
    assert built.absent == ()
    assert {file.path for file in built.files} == {
        path.relative_to(folder).as_posix() for path in (folder / "images").rglob("*.tiff")
    }
    published(built, place, place, tmp_path / "work")
    manifest = BatchManifest.read(folder / "manifest.json")
    assert check(manifest, place, None, digests=1).wrong == 0


def test_a_check_names_the_two_spellings_of_what_it_does_not_take(tmp_path):
    delivery = deliver(tmp_path / "in", sites=1)
    first, second = delivery.images()[:2]
    entries = {entry["path"]: entry for entry in delivery.manifest["plates"][0]["files"]}
    names = [unicodedata.normalize(form, "images/é.tiff") for form in ("NFC", "NFD")]
    for path, name in zip((first, second), names, strict=True):
        entries[path]["path"] = name
    (delivery.folder / first).rename(delivery.folder / names[0])
    (delivery.folder / second).unlink()
    delivery.write()
    manifest = BatchManifest.parse(json.dumps(delivery.manifest), "test")
    (options,) = check(manifest, LocalPlace(delivery.folder), None).findings
    assert (options.kind, options.path) == ("missing", names[1])
    assert options.found == f"no '{names[1]}' (NFD), where there is '{names[0]}' (NFC)"
