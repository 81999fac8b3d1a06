"""Which data a job works on: small descriptions that travel to worker processes and load the data there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from coda.benchmark.data import Labelled, from_datasets, simulated, simulated_digest
from coda.benchmark.rendering import Progress
from coda.benchmark.simulation_plan import SimulationPlan
from coda.config.params import Params


@dataclass(frozen=True)
class Simulated:
    """Simulated plates of one seed.

    Attributes:
        seed: Seed of the experiment.
        plan: Sources, design and processing.
        cache: Folder that rendered data sets are kept in.
    """

    seed: int
    plan: SimulationPlan
    cache: Path

    @property
    def digest(self) -> str:
        """Names the data."""
        return simulated_digest(self.seed, self.plan)

    def load(self, *, processes: int = 1, progress: Progress | None = None) -> Labelled:
        """Return the data, rendered now if they are not there yet."""
        return simulated(self.seed, self.plan, self.cache, processes=processes, progress=progress)


@dataclass(frozen=True)
class Ingested:
    """Ingested plates and the user's labels.

    Attributes:
        folders: Dataset folders.
        labels: Label table.
        params: Stains and size of the fields.
        sources: Sources that are read.
        digest: Names the data.
    """

    folders: tuple[Path, ...]
    labels: Path
    params: Params
    sources: tuple[str, ...]
    digest: str

    def load(self) -> Labelled:
        """Read the data."""
        return from_datasets(self.folders, self.labels, self.params, sources=self.sources)


class DataSpec(Protocol):
    """Describes data to a worker process; it must be small and picklable."""

    @property
    def digest(self) -> str:
        """Names the data."""

    def load(self) -> Labelled:
        """Return the data."""


def ingested(folders: Sequence[Path], labels: Path, params: Params, sources: Sequence[str]) -> Ingested:
    """Return the description of ingested plates, after reading them once.

    Raises:
        CodaError: They cannot be used; see `from_datasets`.
    """
    found = from_datasets(folders, labels, params, sources=sources)
    return Ingested(tuple(folders), labels, params, tuple(sources), found.digest)


_LOADED: dict[str, Labelled] = {}


def loaded(spec: DataSpec) -> Labelled:
    """Return the data; the last ones stay in memory, since the next job of a process usually needs the same."""
    if spec.digest not in _LOADED:
        _LOADED.clear()
        _LOADED[spec.digest] = spec.load()
    return _LOADED[spec.digest]
