"""The whole state of a masked autoencoder: what ODA-MAE and test-time training continue from (paper section 4)."""

from pathlib import Path
from typing import Any

from torch import nn

from coda.config.params import Params
from coda.networks import artifact
from coda.networks.extractor import Extractor, new_extractor
from coda.networks.mae import MaeDecoder
from coda.networks.weights import initialise_xavier, seeded
from coda.training.methods.stored_state import read_state

KIND = "mae_state"
"""Kind of a stored state."""


class MaeState(nn.Module):
    """Encoder and decoder; changed in place by training.

    Attributes:
        encoder: The extractor that serves.
        decoder: Needed for training only, on the source and on every target.
    """

    method = "mae"

    def __init__(self, encoder: Extractor, decoder: MaeDecoder) -> None:
        """Put both networks together."""
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    @property
    def extractor(self) -> Extractor:
        """The encoder, which serves."""
        return self.encoder

    @property
    def learner(self) -> Extractor:
        """The encoder, which the optimizer changes."""
        return self.encoder

    def config(self) -> dict[str, Any]:
        """Return everything needed to rebuild the networks."""
        return {"kind": KIND, "encoder": self.encoder.config, "decoder": self.decoder.config}


def new_mae_state(params: Params, *, seed: int) -> MaeState:
    """Return the state that Dual-model-MAE starts from: the encoder as every extractor starts, the decoder at random.

    Raises:
        ConfigError: The extractor cannot be built or its first weights cannot be had.
    """
    encoder = new_extractor(params, seed=seed, drop_path=0.0)
    config = {
        "width": encoder.width,
        "hidden_dim": params.mae.decoder_width,
        "depth": params.mae.decoder_depth,
        "num_heads": params.mae.decoder_heads,
        "patch_size": encoder.patch_size,
        "stains": len(encoder.channels),
    }
    with seeded(seed + 1):
        decoder = MaeDecoder(config)
        initialise_xavier(decoder)
        nn.init.normal_(decoder.mask_token, std=0.02)
    return MaeState(encoder, decoder)


def save_mae_state(folder: Path, state: MaeState) -> str:
    """Write a model folder for the state and return its digest."""
    return artifact.save(folder, state.state_dict(), state.config())


def load_mae_state(folder: Path, expected_digest: str | None = None) -> MaeState:
    """Verify a model folder and rebuild its state on the CPU.

    Raises:
        IntegrityError: The folder's bytes are not the recorded ones, or describe no network of ours.
        ConfigError: It holds another kind of network.
    """
    networks = {"encoder": (Extractor, "encoder"), "decoder": (MaeDecoder, "decoder")}
    return MaeState(**read_state(folder, expected_digest, KIND, networks)[0])
