"""A step that was killed for want of memory: distinguished from a lost node, wherever the runner can know it."""

import re

from coda.errors import ConfigError, Problem

BY_SIGNAL = "killed by signal 9"
"""What our own runner prints of a step that ended so; the kernel does it to whoever holds the most memory."""

_WORDS = re.compile(rf"\bOOMKilled\b|{BY_SIGNAL}")

REMEDY = (
    "Give the step more memory: `memory` in pipelines/resources.py and `coda pipeline compile`, or fewer programs "
    "beside it here. Or let it need less: compute.images: stored, a smaller head.tokens_gib."
)


def killed_for_memory(words: str) -> bool:
    """Return whether a runner's message says so: ours, or Kubernetes' as Argo passes it on.

    Exit code 137 alone does not: a node that is drained kills its pods in the same way.
    """
    return bool(_WORDS.search(words))


def memory_error(step: str, words: str, log: str) -> ConfigError:
    """Return the error of a step that was killed, with the settings that decide how much memory it has and needs."""
    where = f" The whole log: {log}." if log else ""
    problem = Problem(step, words, "a step that keeps to its memory", REMEDY + where)
    return ConfigError(f"Step '{step}' was killed, as the system does for want of memory.", [problem])
