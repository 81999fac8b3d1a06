"""What all components share: the image they name, and the decorator that makes a function one."""

from collections.abc import Callable
from typing import Any

from kfp import dsl

IMAGE = "coda-pipeline:0.1.0-python"
"""The word 'python' tells KFP's subprocess runner that the components need nothing but Python.

`pipelines.compile --image` replaces it by an image with a digest.
"""

component: Callable[[Callable[..., Any]], Any] = dsl.component(base_image=IMAGE, install_kfp_package=False)
"""Make a function a lightweight component: its text alone is compiled, so everything is imported inside."""
