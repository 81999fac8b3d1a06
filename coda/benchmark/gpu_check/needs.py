"""All packages that the check imports: what a bare machine lacks of them is brought along as wheels."""

from collections.abc import Mapping
from importlib.util import find_spec

from coda.errors import ConfigError, Problem

NEEDED: Mapping[str, tuple[str, str]] = {
    "torch": ("torch", "networks and training"),
    "numpy": ("numpy", "arrays"),
    "pandas": ("pandas", "the table of the fields"),
    "timm": ("timm", "the vision transformer"),
    "torchvision": ("torchvision", "timm imports it"),
    "PIL": ("pillow", "torchvision imports it"),
    "safetensors": ("safetensors", "digests of weights; timm imports it too"),
    "yaml": ("PyYAML", "params.yaml; timm imports it too"),
    "pydantic": ("pydantic", "parameters"),
    "pydantic_core": ("pydantic_core", "pydantic imports it"),
    "annotated_types": ("annotated-types", "pydantic imports it"),
    "typing_inspection": ("typing-inspection", "pydantic imports it"),
    "typing_extensions": ("typing_extensions", "torch and pydantic import it"),
    "imagecodecs": ("imagecodecs", "plate stores"),
    "google_crc32c": ("google-crc32c", "checksums of plate stores"),
}
"""Package as it is imported -> its name in a registry, and what it is for."""


def require_packages() -> None:
    """Refuse a machine that lacks a package, before anything is imported.

    Raises:
        ConfigError: It names all that are missing.
    """
    problems = [
        Problem(name, "no such package", f"{distribution} ({use})", "Bring its wheel (docs/gpu_check.md).")
        for name, (distribution, use) in NEEDED.items()
        if find_spec(name) is None
    ]
    if problems:
        raise ConfigError("Packages that the check needs are missing; nothing was measured.", problems)
