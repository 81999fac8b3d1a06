"""Stopping without labels: the teacher is evaluated now and then, and its best weights serve (docs/adaptation.md).

Two numbers are measured at every evaluation, through the frozen head: how evenly the mean prediction uses the classes
(marginal entropy), and how much the predictions of one treatment agree across batches (agreement). One of them may
choose. The released extractor is evaluated first: where nothing after it is better, it serves on.
"""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from coda.adaptation.serving import Way, serve
from coda.config.params import Params, Stopping
from coda.errors import ConfigError, Problem
from coda.evaluation.metrics.agreement import agreement
from coda.evaluation.metrics.comparison_groups import comparison_groups
from coda.evaluation.metrics.marginal_entropy import marginal_entropy
from coda.evaluation.metrics.metric_result import Grouping
from coda.evaluation.predictions.prediction_levels import TREATED
from coda.networks.extractor import Extractor
from coda.plates.stored import Fields


class LabelFreeEarlyStopping:
    """Evaluates the teacher through a frozen head (`coda.training.hooks.EarlyStopping`)."""

    def __init__(self, teacher: Extractor, way: Way, fields: Fields, params: Params) -> None:
        """Evaluate the released extractor, before it is adapted.

        Args:
            teacher: The extractor that adaptation starts from.
            way: Frozen head and alignment to look through.
            fields: Fields that are adapted to; treated wells count.
            params: ``adaptation.stopping``, alignment groups, crops and compute.

        Raises:
            ConfigError: The criterion cannot be computed on these fields.
        """
        self.stopping: Stopping = params.adaptation.stopping
        self.every = self.stopping.every
        self._way, self._params, self._fields = way, params, fields
        # all fields are served, since statistics may be fitted on controls; treated ones are measured
        self._treated = fields.table["Metadata_pert_type"].isin(TREATED).to_numpy(bool)
        rows = fields.table[self._treated]
        _, groups = comparison_groups(rows)
        self._design = Grouping.of(rows["Metadata_Treatment"].tolist(), groups)
        self._evaluations: list[dict[str, float | None]] = []
        self._best: dict[str, Tensor] | None = None
        if not self._treated.any():
            problem = Problem("dataset", "no treated field", "at least one", "Set adaptation.stopping.every=0.")
            raise ConfigError("There is nothing to evaluate while adapting.", [problem])
        self.evaluate(0, teacher)
        criterion = self.stopping.criterion
        if criterion != "none" and not math.isfinite(self._values()[0]):
            remedy = "Use adaptation.stopping.criterion=marginal_entropy (for one plate), or none."
            found = f"{len(self._design.names)} treatment(s) in {self._design.groups} group(s)"
            problem = Problem("adaptation.stopping.criterion", found, f"fields on which {criterion} exists", remedy)
            raise ConfigError("The stopping criterion cannot be computed on these fields.", [problem])

    def evaluate(self, iteration: int, teacher: Extractor) -> dict[str, float]:
        """Measure the teacher; remember its weights when it is the best so far (ties go to the earlier evaluation).

        Returns:
            ``marginal_entropy`` (0 to 1) and ``agreement`` (-1 to 1); without one that there is nothing to compare for.
        """
        served = serve(teacher, [self._way], self._fields, self._params).ways[self._way.name]
        predicted = served.probabilities[self._treated]
        numbers = {
            "marginal_entropy": marginal_entropy(predicted, at_most=len(self._design.names)).value,
            "agreement": agreement(predicted, self._design).value,
        }
        told = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        self._evaluations.append({"iteration": iteration, **told})
        if self.stopping.criterion != "none" and self._best_place() == len(self._evaluations) - 1:
            self._best = {name: tensor.detach().clone() for name, tensor in teacher.state_dict().items()}
        return {name: value for name, value in numbers.items() if math.isfinite(value)}

    def should_stop(self) -> bool:
        """Say whether the criterion has not risen for more evaluations than patience allows."""
        if self.stopping.criterion == "none":
            return False
        return len(self._evaluations) - 1 - self._best_place() >= self.stopping.patience

    def best(self) -> Mapping[str, Tensor] | None:
        """Return the teacher's weights at its best evaluation; None without a criterion: the last ones serve."""
        return self._best

    def state_dict(self) -> dict[str, Tensor]:
        """Return the best weights so far."""
        return dict(self._best or {})

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Go back to what `state_dict` returned."""
        self._best = {name: tensor.clone() for name, tensor in tensors.items()} or None

    def get_extra_state(self) -> dict[str, Any]:
        """Return all evaluations, the first at iteration 0, and the iteration whose weights serve (None: the last)."""
        chosen = self._evaluations[self._best_place()]["iteration"] if self.stopping.criterion != "none" else None
        looks = [dict(found) for found in self._evaluations]  # the name that stored logs have
        return {"criterion": self.stopping.criterion, "looks": looks, "best": chosen}

    def set_extra_state(self, records: Mapping[str, Any]) -> None:
        """Go back to what `get_extra_state` returned."""
        self._evaluations = [dict(found) for found in records["looks"]]

    def _values(self) -> list[float]:
        values = [found[self.stopping.criterion] for found in self._evaluations]
        return [-math.inf if value is None else float(value) for value in values]

    def _best_place(self) -> int:
        values = self._values()
        return values.index(max(values))
