"""The doctor: compares what ledger, runs, release log, MLflow and data registry say of the same things."""

from coda.doctor.examine import Examination, examine, repair
from coda.doctor.findings import Finding, Repair

__all__ = ["Examination", "Finding", "Repair", "examine", "repair"]
