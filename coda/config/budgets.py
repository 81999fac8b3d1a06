"""The budgets among the parameters, by the names that a person sets them by."""

from coda.config.params import Budget, Params


def budgets(params: Params) -> dict[str, Budget]:
    """Return every budget by its dotted name."""
    return {
        "pretrain": params.pretrain,
        "head.budget": params.head.budget,
        "adaptation.budget": params.adaptation.budget,
        "mae.pretrain": params.mae.pretrain,
        "mae.adaptation": params.mae.adaptation,
        "supervised": params.supervised,
    }
