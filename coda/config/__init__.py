"""Parameters: `params.yaml` and overlays into one strict model. Values only; where services are is `coda.settings`."""

from coda.config.load import changed, load_params, params_digest
from coda.config.params import Params

__all__ = ["Params", "changed", "load_params", "params_digest"]
