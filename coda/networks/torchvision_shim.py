"""Lets timm be imported where torchvision's compiled part cannot be loaded.

torchvision's wheels are built against the CUDA build of torch. Beside a CPU build of torch their compiled operators do
not load, torchvision refuses to be imported, and timm with it, although nothing here uses those operators. Declaring
the two operators that torchvision looks up at import time is enough; calling them still fails cleanly.
"""

import importlib
import sys
import threading
import warnings
from typing import Any, Literal

_declared: list[object] = []
_lock = threading.Lock()


def ensure_torchvision() -> Literal["native", "shim"]:
    """Make ``import torchvision`` (and so ``import timm``) work; safe to call any number of times.

    Returns:
        'native' when torchvision's own operators are there, 'shim' when two of them are only declared.

    Raises:
        RuntimeError: torchvision cannot be imported for another reason.
    """
    with _lock, warnings.catch_warnings():
        # torchvision warns about its missing image codecs, which nothing here uses
        warnings.simplefilter("ignore")
        try:
            importlib.import_module("torchvision")
        except RuntimeError as error:
            if "torchvision::" not in str(error):
                raise
        else:
            return "shim" if _declared else "native"
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        import torch

        library_class: Any = torch.library.Library
        library = library_class("torchvision", "FRAGMENT")  # must live as long as the process
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
        importlib.import_module("torchvision")
    return "shim"
