"""Where images may lie that are not beside their manifest: only at places that the operator allows.

A manifest is written by whoever may write to the landing bucket. Were it believed, it could have the pipeline read,
with the pipeline's own rights, any bucket and any folder, and put what it finds into a dataset that its author can see.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from coda.errors import ConfigError, ContractError, Problem
from coda.settings import Settings
from coda.storage.objects import ObjectStore

VARIABLE = "CODA_IMAGE_ROOTS"

_ADDRESS = re.compile(r"^(unsigned\+)?s3://([^/\s,#]+)(?:/([^,#]*))?(?:#(https?://[^\s,#]+))?$")


@dataclass(frozen=True)
class ImageRoot:
    """One place of `CODA_IMAGE_ROOTS`.

    Attributes:
        text: As the operator wrote it.
        parts: Folder: its path, resolved, name by name; object storage: the bucket, then the names of the prefix.
        unsigned: Whether it is read without credentials.
        endpoint: The service, where it is another one than the platform's.
        local: Whether it is a folder of this machine.
    """

    text: str
    parts: tuple[str, ...]
    unsigned: bool = False
    endpoint: str | None = None
    local: bool = False


def image_roots(settings: Settings) -> tuple[ImageRoot, ...]:
    """Return the places that a manifest may name.

    Raises:
        ConfigError: One of them is neither a folder nor an s3:// address.
    """
    texts = [text.strip() for text in settings.image_roots.split(",") if text.strip()]
    return tuple(_root(text) for text in texts if text != "none")


def images_place(images_at: str, settings: Settings) -> ObjectStore | Path:
    """Return the store or the folder of a manifest's `images_at`.

    Args:
        images_at: ``s3://bucket/prefix``, or an absolute path.
        settings: Allowed places, and the platform's object store.

    Returns:
        A store whose prefix is the place, unsigned where the operator marked it so; or the folder, links resolved.

    Raises:
        ContractError: The place is not an allowed one.
        ConfigError: `CODA_IMAGE_ROOTS` cannot be understood.
    """
    roots = image_roots(settings)
    local = not images_at.startswith("s3://")
    wanted = _folder_parts(images_at) if local else _object_parts(images_at)
    fitting = [root for root in roots if root.local == local and wanted[: len(root.parts)] == root.parts]
    if not fitting or any(part in {"", ".", ".."} for part in wanted):
        allowed = ", ".join(root.text for root in roots) or "nothing"
        remedy = (
            f"Put the images beside the manifest; or, if they shall be read there, the operator adds the place to "
            f"{VARIABLE} (docs/settings.md)."
        )
        problem = Problem("images_at", images_at, f"a place at or below {allowed}", remedy)
        raise ContractError("The images of this manifest lie where nothing is read.", [problem])
    if local:
        return Path(images_at).resolve()
    root = max(fitting, key=lambda root: len(root.parts))
    return ObjectStore(images_at, root.endpoint or settings.s3_endpoint, unsigned=root.unsigned)


def store_at(address: str, settings: Settings) -> ObjectStore:
    """Return the store of an address that the operator typed, in any of the forms of `CODA_IMAGE_ROOTS`.

    An address without a mark that lies below a marked root is read as the root is: a public bucket needs no mark.

    Args:
        address: ``s3://bucket/prefix``, with ``unsigned+`` before it or ``#https://host`` behind it where needed.
        settings: Allowed places, and the platform's object store.

    Raises:
        ConfigError: It is no such address.
    """
    typed = _root(address, "address")
    if typed.local:
        problem = Problem(address, "a folder", "an s3:// address", "Correct the address.")
        raise ConfigError(f"{address!r} is not the address of an object store.", [problem])
    if not typed.unsigned and typed.endpoint is None:
        near = [root for root in image_roots(settings) if typed.parts[: len(root.parts)] == root.parts]
        if near:
            best = max(near, key=lambda root: len(root.parts))
            typed = ImageRoot(address, typed.parts, best.unsigned, best.endpoint)
    uri = f"s3://{'/'.join(typed.parts)}"
    return ObjectStore(uri, typed.endpoint or settings.s3_endpoint, unsigned=typed.unsigned)


def _root(text: str, where: str = VARIABLE) -> ImageRoot:
    if text.startswith("/"):
        return ImageRoot(text, _folder_parts(text), local=True)
    match = _ADDRESS.match(text)
    if match is None:
        expected = "an absolute folder, or [unsigned+]s3://bucket[/prefix][#https://host]"
        problem = Problem(where, repr(text), expected, "Correct it (docs/settings.md).")
        raise ConfigError("A place of images cannot be understood.", [problem])
    mark, bucket, prefix, endpoint = match.groups()
    return ImageRoot(text, (bucket, *_names(prefix or "")), mark is not None, endpoint)


def _folder_parts(path: str) -> tuple[str, ...]:
    return Path(path).resolve().parts


def _object_parts(uri: str) -> tuple[str, ...]:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    return (bucket, *_names(prefix))


def _names(prefix: str) -> tuple[str, ...]:
    # a slash at either end names the same place; one inside twice is another key, and no place of ours
    return tuple(prefix.strip("/").split("/")) if prefix.strip("/") else ()
