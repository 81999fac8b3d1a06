"""How fast a plate comes in: stage by stage, against the codecs alone and against the obvious way (decision 0048)."""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.ingest.ingest_delivery import Delivered, deliver_fields
from benchmarks.ingest.ingest_stages import OURS, StageTimes, time_stages
from benchmarks.ingest.store_codecs import CodecRow, LoadTimes, codec_table, load_times
from coda.config.params import Params
from coda.contracts.manifest import MANIFEST_NAME
from coda.errors import ConfigError, Problem
from coda.plates.batch_files import LocalFiles
from coda.plates.batch_ingest import ingest_batch
from coda.plates.dataset import open_batches, open_fields
from coda.plates.workers import Workers, keep_memory

SAME_WORK = tuple(stage for stage in OURS if stage != "statistics")
"""Stages whose work the obvious way does too; it has no quality statistics."""

TARGET2_FIELDS = 487_000
"""Fields of the 141 TARGET2 plates of JUMP-CP: 384 wells of 4, 6 or 9 sites."""

TARGET2_CORES = 16
USD_PER_GB_MONTH = 0.023
"""What a large cloud asks for object storage in its standard class; a list price, for orders of magnitude."""

MessageCallback = Callable[[str], None]


@dataclass(frozen=True)
class WholePlates:
    """The whole ingest of one plate by number of processes.

    Attributes:
        seconds: Wall seconds, turn by turn.
        codec_seconds: Wall seconds of the same processes decoding LZW and nothing else, turn by turn: what this machine
            gives to several processes at once.
        fields: Fields that were read.
    """

    seconds: dict[int, tuple[float, ...]]
    codec_seconds: dict[int, tuple[float, ...]]
    fields: int

    def gain(self, processes: int) -> float:
        """Return how much faster some processes are than one, each at its best turn."""
        return min(self.seconds[1]) / min(self.seconds[processes])

    def machine_gain(self, processes: int) -> float:
        """Return how much faster some processes decode LZW than one, each at its best turn."""
        return min(self.codec_seconds[1]) / min(self.codec_seconds[processes])


@dataclass(frozen=True)
class IngestReport:
    """All of one run of `coda benchmark ingest`.

    Attributes:
        side: Edge of a raw image in pixels.
        raw_bytes: Bytes of a field's raw pixels.
        file_bytes: Bytes of a field's files.
        stages: One measurement a turn.
        obvious: CPU seconds of a field by stage, one a turn.
        largest_difference: Largest difference of a stored pixel between the two ways, in grey values of 255.
        different_share: Share of stored pixels that differ.
        plates: The whole ingest.
        load: Loading the plate again.
        codecs: Ways to keep a field.
        load_before: Running processes in the minute before.
    """

    side: int
    raw_bytes: int
    file_bytes: float
    stages: tuple[StageTimes, ...]
    obvious: tuple[dict[str, float], ...]
    largest_difference: int
    different_share: float
    plates: WholePlates
    load: LoadTimes
    codecs: tuple[CodecRow, ...]
    load_before: float

    def ours(self, stages: Sequence[str] = OURS) -> float:
        """Return our CPU seconds for a field, in these stages: the best turn."""
        return min(sum(turn.ours[stage] for stage in stages) for turn in self.stages)

    @property
    def codecs_alone(self) -> float:
        """Return what the codecs and the disk take for a field: the best turn."""
        return min(sum(turn.codecs.values()) for turn in self.stages)

    @property
    def obvious_seconds(self) -> float:
        """Return the obvious way's CPU seconds for a field, without what it does once a plate: the best turn."""
        return min(sum(value for stage, value in turn.items() if stage != "plate_once") for turn in self.obvious)

    @property
    def times_obvious(self) -> tuple[float, ...]:
        """Return how many times faster we are at the same work, turn by turn."""
        ours = [sum(turn.ours[stage] for stage in SAME_WORK) for turn in self.stages]
        theirs = [sum(value for stage, value in turn.items() if stage != "plate_once") for turn in self.obvious]
        return tuple(b / a for a, b in zip(ours, theirs, strict=True))

    def target2(self) -> dict[str, float]:
        """Return what the 141 TARGET2 plates would take: hours on 16 cores, GB in the store, USD a month."""
        gb = TARGET2_FIELDS * float(np.mean([turn.stored_bytes for turn in self.stages])) / 1e9
        seconds = TARGET2_FIELDS * min(self.plates.seconds[1]) / self.plates.fields
        return {
            "hours": TARGET2_FIELDS * self.ours() / TARGET2_CORES / 3600,
            "hours_whole_ingest": seconds / TARGET2_CORES / 3600,
            "stored_gb": gb,
            "raw_gb": TARGET2_FIELDS * self.file_bytes / 1e9,
            "usd_per_month": gb * USD_PER_GB_MONTH,
        }


def measure_ingest(
    params: Params,
    work: Path,
    *,
    side: int = 1080,
    different: int = 12,
    fields: int = 144,
    turns: int = 3,
    told: MessageCallback = lambda words: None,
) -> IngestReport:
    """Measure ingest in this process and the whole of it in several.

    Args:
        params: Ingest parameters.
        work: Where simulated fields are kept, and results for a while; on the disk that is meant.
        side: Edge of a raw image, in pixels.
        different: Fields that are simulated; stages are measured on them.
        fields: Fields of the plate that is ingested whole.
        turns: Times everything is measured, all ways one after the other.
        told: Called with what is being done.

    Raises:
        ConfigError: scikit-image, which the obvious way is written with, is not installed.
    """
    try:
        from benchmarks.ingest.baseline_ingest import prepare_plate
    except ImportError as error:
        remedy = "Install the extra 'benchmark': pip install 'coda-pipeline[benchmark]'."
        problem = Problem("scikit-image", "not installed", "the library of the obvious way", remedy)
        raise ConfigError("There is nothing to measure against.", [problem]) from error
    load_before = os.getloadavg()[0]
    params = _always_correcting(params)
    keep_memory()  # stages and codecs run as in a worker process
    told(f"simulating {different} fields of {side} x {side}")
    delivered = deliver_fields(work / f"delivery_{side}", different=different, fields=fields, side=side)
    place = work / "measured"
    stages, obvious = [], []
    try:
        with threadpool_limits(1, user_api="blas"):  # torch keeps the threads it has
            for turn in range(turns):
                told(f"turn {turn + 1} of {turns}: our stages")
                stages.append(time_stages(delivered, place / "ours", params.ingest))
                told(f"turn {turn + 1} of {turns}: the obvious way")
                obvious.append(prepare_plate(delivered.fields, place / "obvious", params.ingest))
        told("the whole ingest")
        plates = _whole_plates(delivered, place / "dataset", params, turns)
        told("loading")
        batches = open_batches(place / "dataset")
        stored = open_fields(batches, params.ingest.channels, int(side * params.ingest.scaling_factor))
        load = load_times(stored, turns=turns)
        told("codecs")
        codecs = codec_table(stages[0].pixels, threads=min(4, os.cpu_count() or 1), turns=turns)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    pairs = zip(stages[0].pixels, obvious[0].pixels, strict=True)
    differences = np.concatenate([np.abs(a.astype(np.int16) - b).ravel() for a, b in pairs])
    return IngestReport(
        side=side,
        raw_bytes=delivered.raw_bytes,
        file_bytes=delivered.file_bytes,
        stages=tuple(stages),
        obvious=tuple(turn.seconds for turn in obvious),
        largest_difference=int(differences.max()),
        different_share=float((differences > 0).mean()),
        plates=plates,
        load=load,
        codecs=tuple(codecs),
        load_before=load_before,
    )


def _always_correcting(params: Params) -> Params:
    """Return the parameters with illumination corrected however few the fields, as the obvious way does."""
    light = params.ingest.illumination.model_copy(update={"min_fields": 1})
    return params.model_copy(update={"ingest": params.ingest.model_copy(update={"illumination": light})})


def _whole_plates(delivered: Delivered, out: Path, params: Params, turns: int) -> WholePlates:
    """Run the ingest of the plate with one process, two, ... up to the cores of this machine (four at most)."""
    counts = [count for count in (1, 2, 4) if count <= (os.cpu_count() or 1)]
    spent: dict[int, list[float]] = {count: [] for count in counts}
    codec: dict[int, list[float]] = {count: [] for count in counts}
    text = (delivered.folder / MANIFEST_NAME).read_bytes()
    expected = 0
    for count in counts:
        with Workers(count) as workers:
            list(workers.map(abs, range(2 * count)))  # processes start once, not once a plate
            for _ in range(turns):
                begin = time.perf_counter()
                list(workers.map(_decode, [delivered.fields] * 8))
                codec[count].append(time.perf_counter() - begin)
                shutil.rmtree(out, ignore_errors=True)
                begin = time.perf_counter()
                files = LocalFiles(delivered.folder)
                report = ingest_batch(text, files, out, where=MANIFEST_NAME, params=params, workers=workers)
                spent[count].append(time.perf_counter() - begin)
                expected = report.fields_accepted
    return WholePlates(
        {count: tuple(values) for count, values in spent.items()},
        {count: tuple(values) for count, values in codec.items()},
        expected,
    )


def _decode(fields: Sequence[Sequence[Path]]) -> None:
    for field in fields:
        for path in field:
            imagecodecs.tiff_decode(path.read_bytes())
