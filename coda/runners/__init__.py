"""Ways of running a pipeline behind one function: on this machine, in containers, on Kubeflow."""

from coda.runners.port import RunOutcome, run_pipeline

__all__ = ["RunOutcome", "run_pipeline"]
