"""The loader that MLflow calls for a registered extractor or head: safetensors and JSON, verified, never unpickled.

`mlflow.pyfunc.load_model("models:/coda-extractor/1")` imports this module from the installed package; the artifact
holds no code.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from coda.config.params import Crops
from coda.config.recorded import TRAINED
from coda.config.served_params import recorded_crops
from coda.errors import ConfigError, Problem, raise_if_any
from coda.networks import artifact
from coda.networks.classical_head import ClassicalHead
from coda.networks.extractor import Extractor, load_extractor, set_attention
from coda.networks.head import Head, load_head
from coda.networks.runtime import Runtime
from coda.registry import signing
from coda.settings import VARIABLES
from coda.training.crops import standardised_crops


class ExtractorModel:
    """An extractor behind MLflow's interface."""

    def __init__(self, network: Extractor) -> None:
        """Serve this network on the CPU."""
        set_attention(network, _runtime(network.config).attention)
        self.network = network

    def predict(self, model_input: NDArray[Any], params: dict[str, Any] | None = None) -> NDArray[np.float32]:
        """Return the tokens of crops, in the precision that the network was trained in.

        Args:
            model_input: Shape (batch, channels, side, side), stains in the network's own order, and the side that its
                record names (``crops.global_size``). float32 is taken as it is (standardised crops); uint8 is stored
                pixels, which are standardised here as in training: each crop and channel by its own moments.
            params: None are known.

        Returns:
            float32, shape (batch, 1 + patches, width), class token first.

        Raises:
            ConfigError: The crops are not those that the network was trained on.
        """
        _refuse_params(params)
        images = _array(model_input, 4, (np.float32, np.uint8))
        crops = recorded_crops(self.network.config.get("crops") or {})
        _require_crops(images, crops, self.network.channels)
        values = torch.from_numpy(images)
        if images.dtype == np.uint8:
            values = standardised_crops(values)
        with torch.inference_mode(), _runtime(self.network.config).autocast():
            return self.network(values).float().numpy()  # type: ignore[no-any-return]

    def get_raw_model(self) -> Extractor:
        """Return the network itself."""
        return self.network


class HeadModel:
    """A head behind MLflow's interface."""

    def __init__(self, network: Head | ClassicalHead) -> None:
        """Serve this network on the CPU."""
        set_attention(network, _runtime(network.config).attention)
        self.network = network

    def predict(self, model_input: NDArray[Any], params: dict[str, Any] | None = None) -> NDArray[np.float32]:
        """Return the probability of each mechanism.

        Args:
            model_input: Tokens of an extractor of the head's own line, float32, shape (batch, tokens, width); for a
                head of alignment 'standardise' they are standardised by their own batch beforehand. For a classical
                head profiles (`coda.networks.profile`), shape (batch, 1, width), likewise.
            params: None are known.

        Returns:
            float32, shape (batch, classes), each row sums to 1; classes as in the head's config.
        """
        _refuse_params(params)
        tokens = torch.from_numpy(_array(model_input, 3, (np.float32,)))
        with torch.inference_mode(), _runtime(self.network.config).autocast():
            logits = self.network(tokens)
        return torch.softmax(logits.float(), dim=-1).numpy()

    def get_raw_model(self) -> Head | ClassicalHead:
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


def _runtime(config: Mapping[str, Any]) -> Runtime:
    """Return how a network was trained, on the CPU; a folder from before it was recorded runs in float32."""
    trained = config.get(TRAINED) or {}
    low = torch.bfloat16 if trained.get("compute.precision") == "bfloat16" else None
    return Runtime(torch.device("cpu"), low, "sdpa" if trained.get("compute.attention") == "sdpa" else "explicit")


def _require_crops(images: NDArray[Any], crops: Crops, channels: tuple[str, ...]) -> None:
    shape, side = images.shape[1:], crops.global_size
    expected = f"{len(channels)} stains of {side} x {side} pixels (crops.global_size in its config.json)"
    problems = []
    if shape != (len(channels), side, side):
        remedy = "Cut crops of this size."
        problems.append(Problem("input", f"images of shape {shape}", expected, remedy))
    if images.dtype == np.uint8 and crops.normalise != "crop":
        expected = f"float32, standardised by crops.normalise={crops.normalise} as its config.json says"
        remedy = "Standardise by the moments of the whole image before cutting."
        problems.append(Problem("input", "uint8 crops, whose images' moments are not known", expected, remedy))
    raise_if_any(ConfigError, "These are not the crops that the model was trained on.", problems)


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
