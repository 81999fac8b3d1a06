"""What a plate of a manifest should give, read from its tables before any image is opened."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from coda.config.params import Params
from coda.contracts.base import digest_of_json
from coda.contracts.ingest import ContractProblem
from coda.contracts.manifest import MANIFEST_NAME, BatchManifest, FileEntry, PlateEntry
from coda.contracts.quality import QuarantinedField
from coda.errors import Problem
from coda.plates.batch_files import BatchFiles
from coda.plates.file_lists import FileListError, files_of_plate
from coda.plates.file_references import FileResolver
from coda.plates.lacking import cure
from coda.plates.layout import parse_well
from coda.plates.load_data import FieldRow, read_fields
from coda.plates.plate_map import WellRow, expected_sites, fit_problems, shift_problem
from coda.plates.plate_map_reading import read_wells
from coda.plates.reading import FieldJob, SetAsideError, read_verified
from coda.plates.scaling import scaling_problem
from coda.plates.solvents import listed as listed_solvents
from coda.plates.tabular.dialect import UnreadableTableError
from coda.plates.tabular.encoding import MAX_TABLE_BYTES
from coda.plates.tabular.table import read

INGEST_VERSION = 4
"""Raised whenever the same files and parameters would give another plate store, so that old ones are not reused."""

_WRITE_PLAINLY = (
    "Write it as CSV: UTF-8, commas between values, points in numbers, values that hold a comma in quotation marks."
)

MACHINE = ("workers", "scratch_gib")
"""Parameters of ingest that say how it is done, not what comes of it."""


@dataclass
class PlatePlan:
    """A plate before its images are read.

    Attributes:
        entry: The plate in the manifest.
        content_key: Digest of all that decides the result.
        jobs: Fields to read, in the order of rows, columns and sites.
        wells: The plate map.
        sites: Well that is not empty -> fields it should have.
        expected: Fields the plate should have.
        quarantined: Fields that cannot be read because a table names no delivered file for them.
        problems: What refuses the plate.
        remarks: What a person should know of its tables.
        delivered: Whether every file looked at so far was there as the manifest says.
    """

    entry: PlateEntry
    content_key: str
    jobs: list[FieldJob] = field(default_factory=list)
    wells: list[WellRow] = field(default_factory=list)
    sites: dict[str, int] = field(default_factory=dict)
    expected: int = 0
    quarantined: list[QuarantinedField] = field(default_factory=list)
    problems: list[ContractProblem] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    delivered: bool = True


def content_key(manifest: BatchManifest, entry: PlateEntry, params: Params) -> str:
    """Return the digest of everything that decides what becomes of a plate: its files, its batch, the parameters."""
    ingest = params.ingest.model_dump(mode="json", exclude={*MACHINE, *([] if params.ingest.renamed else ["renamed"])})
    return digest_of_json(
        {
            "version": INGEST_VERSION,
            "batch": manifest.model_dump(mode="json", exclude={"plates", "created_at", "simulation", "images_at"}),
            "plate": entry.model_dump(mode="json"),
            "ingest": ingest,
            "quorum": params.quality.plate_quorum,
        }
    )


def fields_listed(manifest: BatchManifest) -> int:
    """Return how many fields the manifest's files make up, from their number alone; no file list is read."""
    return sum(plate_fields_listed(manifest, entry) for entry in manifest.plates)


def plate_fields_listed(manifest: BatchManifest, entry: PlateEntry) -> int:
    """Return how many fields one plate's files make up, its tables and illumination functions apart."""
    return max(0, entry.file_count - len(entry.not_images)) // len(manifest.channels)


def batch_problems(manifest: BatchManifest, params: Params) -> list[ContractProblem]:
    """Return what makes a whole batch unusable before any file is read."""
    absent = [stain for stain in params.ingest.channels if stain not in stored_names(manifest, params)]
    renamed = _renaming(manifest, params)
    if renamed is not None:
        return [recorded(renamed)]
    problems = [problem] if (problem := scaling_problem(manifest, params.ingest)) is not None else []
    if absent:
        problems.append(_absent_stains(manifest, params, absent))
    return [recorded(problem) for problem in problems]


def stored_names(manifest: BatchManifest, params: Params) -> tuple[str, ...]:
    """Return the channels of a delivery by the names under which they are stored."""
    return manifest.renamed(params.ingest.renamed).channels


def _renaming(manifest: BatchManifest, params: Params) -> Problem | None:
    """Return why channels cannot be stored under the names that the parameters give them."""
    renamed = params.ingest.renamed
    unknown = [name for name in renamed if name not in manifest.channels]
    names = stored_names(manifest, params)
    folded = [name.casefold() for name in names]
    met = sorted({name for name in names if folded.count(name.casefold()) > 1})
    if not unknown and not met:
        return None
    found = f"{', '.join(unknown)}, which the delivery does not have" if unknown else f"{', '.join(met)} twice"
    expected = f"channels of the delivery ({', '.join(manifest.channels)}), each under a name of its own"
    return Problem("ingest.renamed", found, expected, "Correct it: --set 'ingest.renamed={OLD: NEW}', or {} for none.")


def _absent_stains(manifest: BatchManifest, params: Params, absent: Sequence[str]) -> Problem:
    names, wanted = stored_names(manifest, params), params.ingest.channels
    remedy = (
        f"Image these stains; or, if no model that reads the batch needs them, leave {', '.join(absent)} out of "
        "ingest.channels and extractor.channels."
    )
    if any(name not in wanted for name in names):
        remedy += f" {cure(names, wanted, already=params.ingest.renamed)}"
    return Problem(
        MANIFEST_NAME,
        f"only the stains {', '.join(names)}",
        f"all of {', '.join(wanted)} (missing: {', '.join(absent)})",
        remedy,
    )


def recorded(problem: Problem, plate: str = "") -> ContractProblem:
    """Return a problem as the ingest report keeps it."""
    return ContractProblem(
        plate=plate, where=problem.where, found=problem.found, expected=problem.expected, remedy=problem.remedy
    )


def plan_plate(files: BatchFiles, manifest: BatchManifest, entry: PlateEntry, params: Params) -> PlatePlan:
    """Read a plate's file list and tables, hold them against each other and the manifest; problems are in the plan.

    Raises:
        TransientError: The storage is away.
    """
    plan = PlatePlan(entry.renamed(params.ingest.renamed), content_key(manifest, entry, params))
    try:
        listed = {file.path: file for file in files_of_plate(files, entry)}
    except FileListError as error:
        plan.delivered = not error.delivery
        plan.problems += [recorded(problem, entry.plate) for problem in error.problems]
        plan.expected = plate_fields_listed(manifest, entry)
        return plan
    found = _fields_and_wells(files, manifest, plan, listed, params)
    if found is not None:
        fields, plan.wells = found
        plan.problems += [recorded(problem, entry.plate) for problem in _fit(plan, fields, params)]
        plan.sites = expected_sites(fields, plan.wells, entry.sites_per_well)
        plan.expected = sum(plan.sites.values()) + sum(row.well not in plan.sites for row in fields)
        plan.jobs = _jobs(plan, fields, params.ingest.channels, listed)
        if not fields and not plan.problems:
            problem = Problem(f"plate {entry.plate}", "no field", "one row of load_data a field", "Deliver load_data.")
            plan.problems.append(recorded(problem, entry.plate))
    else:
        plan.expected = plate_fields_listed(manifest, entry)
    return plan


def _fields_and_wells(
    files: BatchFiles, manifest: BatchManifest, plan: PlatePlan, listed: dict[str, FileEntry], params: Params
) -> tuple[list[FieldRow], list[WellRow]] | None:
    entry = plan.entry
    tables = {}
    for path in (entry.load_data, entry.plate_map):
        where = f"plate {entry.plate}, {path}"
        try:
            tables[path] = read(read_verified(files, listed[path], max_bytes=MAX_TABLE_BYTES))
        except (SetAsideError, UnreadableTableError) as error:
            plan.delivered = plan.delivered and not getattr(error, "delivery", False)
            remedy = "Deliver it again." if isinstance(error, SetAsideError) else _WRITE_PLAINLY
            problem = Problem(where, f"a table that {error}", "the table as the manifest lists it", remedy)
            plan.problems.append(recorded(problem, entry.plate))
    if len(tables) < 2:
        return None
    images = [path for path in listed if path not in entry.not_images]
    wells, well_problems, plan.remarks = read_wells(
        tables[entry.plate_map],
        where=f"plate {entry.plate}, {entry.plate_map}",
        plate=entry.plate,
        wells=manifest.plate_wells,
        solvents=listed_solvents(params.ingest.solvents),
    )
    fields, field_problems = read_fields(
        tables[entry.load_data].rows,
        where=f"plate {entry.plate}, {entry.load_data}",
        plate=entry.plate,
        declared=manifest.channels,
        wells=manifest.plate_wells,
        resolver=FileResolver(images),
    )
    plan.problems += [recorded(problem, entry.plate) for problem in (*field_problems, *well_problems)]
    return [field.renamed(params.ingest.renamed) for field in fields], wells


def _fit(plan: PlatePlan, fields: Sequence[FieldRow], params: Params) -> list[Problem]:
    entry = plan.entry
    if plan.problems:
        return []  # the tables themselves are wrong; comparing them would only repeat it
    where = f"plate {entry.plate}, {entry.plate_map}"
    problems, short = fit_problems(fields, plan.wells, where=where, sites_per_well=entry.sites_per_well)
    expected = expected_sites(fields, plan.wells, entry.sites_per_well)
    plan.quarantined += [
        QuarantinedField(
            plate=entry.plate,
            well=well,
            reason=f"{count} of {expected[well]} fields of this well are not in load_data",
        )
        for well, count in short
    ]
    shifted = shift_problem(fields, plan.wells, where=where, quorum=params.quality.plate_quorum)
    return [*problems, shifted] if shifted is not None else problems


def _jobs(
    plan: PlatePlan, fields: Sequence[FieldRow], channels: Sequence[str], listed: dict[str, FileEntry]
) -> list[FieldJob]:
    jobs = []
    shared = {path for path, uses in _uses(fields, channels).items() if uses > 1}
    for row in fields:
        faults = {stain: row.missing[stain] for stain in channels if stain in row.missing}
        for stain in channels:
            if row.files.get(stain) in shared:
                faults[stain] = f"the file '{row.files[stain]}' is given for several fields or stains"
        if faults:
            channel, reason = next(iter(faults.items()))
            plan.quarantined.append(
                QuarantinedField(plate=plan.entry.plate, well=row.well, site=row.site, channel=channel, reason=reason)
            )
            continue
        place = parse_well(row.well)
        if place is not None and all(stain in row.files for stain in channels):
            jobs.append(FieldJob(place, row.well, row.site, tuple(listed[row.files[stain]] for stain in channels)))
    return jobs


def _uses(fields: Sequence[FieldRow], channels: Sequence[str]) -> Counter[str]:
    return Counter(row.files[stain] for row in fields for stain in channels if stain in row.files)
