"""Places that a manifest may name for its images: those of the operator, and nothing that only looks like one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coda.errors import ConfigError, ContractError
from coda.settings import Settings, read_settings
from coda.storage.image_places import images_place, store_at


def settings(roots=None):
    extra = {} if roots is None else {"image_roots": roots}
    return Settings(
        landing="s3://landing", platform="s3://platform", mlflow_uri="x", data_registry="x",
        data_remote="s3://r", checkpoints="x", s3_endpoint="http://127.0.0.1:9", **extra,
    )  # fmt: skip


def test_the_public_collection_alone_is_allowed_at_first():
    store = images_place("s3://cellpainting-gallery/cpg0016-jump/source_4", settings())
    assert (store.unsigned, store.endpoint) == (True, "https://s3.us-east-1.amazonaws.com")
    assert store.uri == "s3://cellpainting-gallery/cpg0016-jump/source_4"
    for place in ("s3://platform/releases", "s3://landing", "/etc", "/"):
        with pytest.raises(ContractError, match="CODA_IMAGE_ROOTS"):
            images_place(place, settings())


@pytest.mark.parametrize(
    ("place", "allowed"),
    [
        ("s3://lab/plates", True), ("s3://lab/plates/", True), ("s3://lab/plates/2024/b 1", True),
        ("s3://lab/plates-2", False), ("s3://lab/plate", False), ("s3://lab", False), ("s3://lab2/plates", False),
        ("s3://lab/plates/../secret", False), ("s3://lab/plates/./x", False), ("s3://lab/plates//x", False),
        ("s3://LAB/plates", False), ("s3://lab/other/plates", False),
    ],
)  # fmt: skip
def test_a_prefix_ends_where_a_name_ends(place, allowed):
    roots = settings("s3://lab/plates,unsigned+s3://open")
    if allowed:
        store = images_place(place, roots)
        assert (store.unsigned, store.endpoint) == (False, "http://127.0.0.1:9")
    else:
        with pytest.raises(ContractError, match="at or below s3://lab/plates"):
            images_place(place, roots)


def test_the_nearest_root_says_how_a_place_is_read():
    roots = settings("s3://lab,unsigned+s3://lab/open,s3://far#https://s3.example.org")
    assert not images_place("s3://lab/x", roots).unsigned
    assert images_place("s3://lab/open/x", roots).unsigned
    assert images_place("s3://far/x", roots).endpoint == "https://s3.example.org"


def test_folders_are_compared_after_their_links_are_followed(tmp_path):
    inside, outside = tmp_path / "plates", tmp_path / "secret"
    for folder in (inside / "b1", outside, tmp_path / "plates-2"):
        folder.mkdir(parents=True)
    (inside / "link").symlink_to(outside)
    (tmp_path / "alias").symlink_to(inside)
    roots = settings(str(tmp_path / "alias"))
    assert images_place(str(inside / "b1"), roots) == (inside / "b1").resolve()
    assert images_place(str(tmp_path / "alias" / "b1"), roots) == (inside / "b1").resolve()
    for place in (inside / "link", inside / "b1/../../secret", outside, tmp_path / "plates-2", tmp_path):
        with pytest.raises(ContractError, match="lie where nothing is read"):
            images_place(str(place), roots)


def test_none_allows_nothing():
    with pytest.raises(ContractError, match="at or below nothing"):
        images_place("s3://cellpainting-gallery/x", settings("none"))


@given(st.text(alphabet="ab./-", max_size=12), st.text(alphabet="ab./-", max_size=12))
def test_whatever_is_allowed_lies_below_the_root(root, tail):
    roots = settings(f"s3://lab/{root}")
    place = f"s3://lab/{root}{tail}"
    try:
        store = images_place(place, roots)
    except ContractError:
        return
    names = [name for name in root.strip("/").split("/") if name]
    assert store.prefix.split("/")[: len(names)] == names or not names
    assert ".." not in store.prefix.split("/")


@pytest.mark.parametrize("roots", ["plates", "s3://", "http://x/y", "s3://a,,s3://b", "s3://a#ftp://h", "~/x"])
def test_a_setting_that_is_no_list_of_places_is_refused(roots):
    with pytest.raises(ConfigError, match="CODA_IMAGE_ROOTS"):
        read_settings(settings().environment | {"CODA_IMAGE_ROOTS": roots})


def test_blanks_between_places_do_not_matter(tmp_path):
    roots = read_settings(settings().environment | {"CODA_IMAGE_ROOTS": f" s3://a , {tmp_path} ,unsigned+s3://b "})
    assert not images_place("s3://a/x", roots).unsigned
    assert images_place("s3://b/x", roots).unsigned
    assert images_place(str(tmp_path), roots) == tmp_path.resolve()


def test_a_typed_address_is_read_as_its_root_is():
    roots = settings("unsigned+s3://open/a#https://s3.example.org")
    assert store_at("s3://open/a/b", roots).unsigned
    assert store_at("s3://open/a/b", roots).endpoint == "https://s3.example.org"
    assert not store_at("s3://open/b", roots).unsigned
    typed = store_at("unsigned+s3://open/b/c#http://127.0.0.1:1", roots)
    assert (typed.unsigned, typed.endpoint, typed.uri) == (True, "http://127.0.0.1:1", "s3://open/b/c")
    with pytest.raises(ConfigError):
        store_at("/folder", roots)
