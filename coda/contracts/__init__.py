"""What crosses a boundary: strict, versioned documents. Knows nothing of the rest of the library."""

from coda.contracts.base import Contract
from coda.contracts.channels import STAINS
from coda.contracts.failure import FailureRecord
from coda.contracts.fields import FieldRecord
from coda.contracts.gate import CandidateScore, GateReport, Measure
from coda.contracts.ingest import ContractProblem, IngestReport, PlateOutcome
from coda.contracts.manifest import MANIFEST_NAME, BatchManifest
from coda.contracts.notification import Notification, NotificationLinks
from coda.contracts.publication import Publication
from coda.contracts.quality import Check, QualityReport, QuarantinedField
from coda.contracts.release import DataRevision, ModelRef, PointerEntry, ReleaseRecord
from coda.contracts.run import RunRecord, StepRecord

PUBLISHED: tuple[type[Contract], ...] = (
    BatchManifest, FieldRecord, QualityReport, GateReport, ReleaseRecord, PointerEntry, RunRecord,
    Publication, Notification,
)  # fmt: skip
"""Contracts whose JSON schemas are published in docs/schemas."""

__all__ = [
    "MANIFEST_NAME", "PUBLISHED", "STAINS", "BatchManifest", "CandidateScore", "Check", "Contract",
    "ContractProblem", "DataRevision", "FailureRecord", "FieldRecord", "GateReport", "IngestReport", "Measure",
    "ModelRef", "Notification", "NotificationLinks",
    "PlateOutcome", "PointerEntry", "Publication", "QualityReport", "QuarantinedField", "ReleaseRecord",
    "RunRecord",
    "StepRecord",
]  # fmt: skip
