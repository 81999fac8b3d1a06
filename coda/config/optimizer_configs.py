"""The optimizer configurations among the parameters, by the names that a person sets them by."""

from coda.config.params import OptimizerConfig, Params


def optimizer_configs(params: Params) -> dict[str, OptimizerConfig]:
    """Return every optimizer configuration by its dotted name."""
    return {
        "pretrain": params.pretrain,
        "head.budget": params.head.budget,
        "adaptation.budget": params.adaptation.budget,
        "mae.pretrain": params.mae.pretrain,
        "mae.adaptation": params.mae.adaptation,
        "supervised": params.supervised,
    }
