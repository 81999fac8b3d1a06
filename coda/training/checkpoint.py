"""Checkpoints of a running training: written whole, verified when read, and tied to the experiment they belong to."""

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from coda.errors import ConfigError, IntegrityError, Problem
from coda.networks import artifact
from coda.networks.finite import not_finite

KEPT = 2


@dataclass(frozen=True)
class Checkpoints:
    """A folder of checkpoints, one sub-folder an iteration.

    Attributes:
        folder: Local folder; made when the first checkpoint is written.
        place: Where a person finds them, if not in that folder: the address in object storage they are copied to.
        written: Called with each finished checkpoint, for example to copy it to object storage.
        prefix: Before the iteration in a sub-folder's name: trainings of one step, one after the other, have their own.
    """

    folder: Path
    written: Callable[[Path], None] | None = None
    prefix: str = ""
    place: str = ""

    def save(self, iteration: int, fingerprint: str, tensors: Mapping[str, Tensor], records: Mapping[str, Any]) -> Path:
        """Write the checkpoint after `iteration` iterations, and forget all but the last two.

        Later ones are of an attempt that was passed over (`latest`) and are forgotten too, else they would crowd out
        what is written now.
        """
        path = self.folder / f"{self.prefix}{iteration:08d}"
        config = {"kind": "checkpoint", "iteration": iteration, "fingerprint": fingerprint, "records": dict(records)}
        artifact.save(path, tensors, config)
        finished = self.finished()
        place = finished.index(path)
        for old in (*finished[: max(0, place + 1 - KEPT)], *finished[place + 1 :]):
            shutil.rmtree(old)
        if self.written is not None:
            self.written(path)
        return path

    def finished(self) -> list[Path]:
        """Return the checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        own = re.compile(re.escape(self.prefix) + r"\d+")
        return sorted(path for path in self.folder.iterdir() if path.is_dir() and own.fullmatch(path.name))

    def latest(self, fingerprint: str) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        """Return the newest intact checkpoint: iteration, tensors and records; None when there is none.

        A checkpoint that was cut short (a full disk, a broken copy), or in which a number is NaN or infinite (of an
        earlier version, which did not look), is passed over for the one before it.

        Raises:
            ConfigError: It belongs to another experiment: other data, parameters, seed or start.
        """
        for path in reversed(self.finished()):
            try:
                tensors, config = artifact.load(path)
            except IntegrityError:
                continue
            if config["fingerprint"] != fingerprint:
                remedy = f"{self.anew}, or give the data and parameters that it was started with."
                problem = Problem(
                    str(path), "a checkpoint of another experiment", "the same data and parameters", remedy
                )
                raise ConfigError("The checkpoint does not belong to this training.", [problem])
            if not_finite(tensors):
                continue
            return int(config["iteration"]), tensors, config["records"]
        return None

    @property
    def anew(self) -> str:
        """What a person does to train from the start, for the remedies of errors."""
        return f"Remove {self.place or self.folder} to train from the start (`coda step`: or give another --work)"

    def forget(self) -> None:
        """Remove all checkpoints: the training is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)
