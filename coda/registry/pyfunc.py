"""The loader that MLflow calls for a registered extractor or head: safetensors and JSON, verified, never unpickled.

`mlflow.pyfunc.load_model("models:/coda-extractor/1")` imports this module from the installed package; the artifact
holds no code.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from coda.errors import ConfigError, Problem
from coda.networks import artifact
from coda.networks.extractor import Extractor, load_extractor
from coda.networks.head import Head, load_head
from coda.registry import signing
from coda.settings import VARIABLES


class ExtractorModel:
    """An extractor behind MLflow's interface."""

    def __init__(self, network: Extractor) -> None:
        """Serve this network on the CPU."""
        self.network = network

    def predict(self, model_input: NDArray[Any], params: dict[str, Any] | None = None) -> NDArray[np.float32]:
        """Return the tokens of images.

        Args:
            model_input: Shape (batch, channels, height, width), stains in the network's own order, sides multiples
                of the patch size. float32 is taken as it is (normalised crops); uint8 is stored pixels, which are
                normalised here: each image and channel to mean 0 and deviation 1.
            params: None are known.

        Returns:
            float32, shape (batch, 1 + patches, width), class token first.
        """
        _refuse_params(params)
        images = _array(model_input, 4, (np.float32, np.uint8))
        values = torch.from_numpy(images.astype(np.float32))
        if images.dtype == np.uint8:
            deviation, mean = torch.std_mean(values, dim=(2, 3), keepdim=True, correction=0)
            values = (values - mean) / deviation.clamp_min(1e-5)
        with torch.inference_mode():
            return self.network(values).numpy()  # type: ignore[no-any-return]

    def get_raw_model(self) -> Extractor:
        """Return the network itself."""
        return self.network


class HeadModel:
    """A head behind MLflow's interface."""

    def __init__(self, network: Head) -> None:
        """Serve this network on the CPU."""
        self.network = network

    def predict(self, model_input: NDArray[Any], params: dict[str, Any] | None = None) -> NDArray[np.float32]:
        """Return the probability of each mechanism.

        Args:
            model_input: Tokens of an extractor of the head's own line, float32, shape (batch, tokens, width); for a
                head of alignment 'standardise' they are standardised by their own batch beforehand.
            params: None are known.

        Returns:
            float32, shape (batch, classes), each row sums to 1; classes as in the head's config.
        """
        _refuse_params(params)
        tokens = torch.from_numpy(_array(model_input, 3, (np.float32,)))
        with torch.inference_mode():
            return torch.softmax(self.network(tokens), dim=-1).numpy()

    def get_raw_model(self) -> Head:
        """Return the network itself."""
        return self.network


def _load_pyfunc(data_path: str) -> ExtractorModel | HeadModel:
    """Load the package that `coda.registry.package` laid out; the name is MLflow's.

    Where CODA_VERIFY_KEY names a public key, the model must be signed with its private half: MLflow calls this
    function with nothing but the path, so the variable is read here.

    Raises:
        IntegrityError: A byte is not the recorded one, or a signature is asked for and does not hold; with the name of
            the file.
        ConfigError: The package holds another kind of network.
    """
    model = Path(data_path) / "model"
    if key := os.environ.get(VARIABLES["verify_key"]):
        signing.require_signature(model, model.with_name(model.name + signing.SUFFIX), key, str(model))
    _, config = artifact.load(model)
    kind = config.get("kind")
    if kind == "extractor":
        return ExtractorModel(load_extractor(model))
    if kind == "head":
        return HeadModel(load_head(model))
    problem = Problem(str(model), f"kind {kind!r}", "an extractor or a head", "Register the right model folder.")
    raise ConfigError("This package holds no network that can predict.", [problem])


def _array(value: NDArray[Any], axes: int, types: tuple[type, ...]) -> NDArray[Any]:
    array = np.ascontiguousarray(value)
    if array.ndim != axes or array.dtype.type not in types:
        wanted = " or ".join(np.dtype(kind).name for kind in types)
        problem = Problem("input", f"{array.dtype} of shape {array.shape}", f"{wanted} of {axes} axes", "Convert it.")
        raise ConfigError("The model cannot take this array.", [problem])
    return array


def _refuse_params(params: dict[str, Any] | None) -> None:
    if params:
        problem = Problem("params", ", ".join(params), "none", "Leave them out.")
        raise ConfigError("The model takes no inference parameters.", [problem])
