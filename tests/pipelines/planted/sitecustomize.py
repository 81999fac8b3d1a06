"""Small steps in place of the real ones, for tests of the pipelines' wiring in the processes KFP starts.

Each writes the files the next one reads, and one line to the file in PLANTED_CALLS. PLANTED_<STEP> makes one misbehave.
"""

import os
import sys
import types

if "PLANTED_CALLS" in os.environ:
    import planted_steps

    for _name, _functions in planted_steps.STEPS.items():
        _module = types.ModuleType(f"coda.steps.{_name}")
        for _function in _functions:
            setattr(_module, _function.__name__, _function)
        sys.modules[_module.__name__] = _module

    if "PLANTED_CONCLUDE" in os.environ:
        import coda.steps.conclude

        # in the guard that is the real one
        coda.steps.conclude.conclude = planted_steps.broken_conclude
