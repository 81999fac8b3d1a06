"""Parameters that note what is read of them: who reads which section (tests of trainers and steps)."""

import sys

from coda.config import Params

WRITING_DOWN = {
    ("coda.config.optimizer_configs", "optimizer_configs"),
    ("coda.networks.made_with", "made_with"),
    ("coda.config.served_params", "groups_of"),
}
"""Functions that put values into messages and into a model's record: what they read changes no weight."""


class Reading:
    """Parameters that note which of their sections are read."""

    def __init__(self, params: Params) -> None:
        sections, read = set(Params.model_fields), set[str]()

        class Noting(Params):
            def __getattribute__(self, name):
                caller = sys._getframe(1)
                if name in sections and (caller.f_globals["__name__"], caller.f_code.co_name) not in WRITING_DOWN:
                    read.add(name)
                return super().__getattribute__(name)

            def model_dump(self, **options):
                read.update(options.get("include") or ())
                return super().model_dump(**options)

        self.read = read
        self.params = Noting.model_construct(**{name: getattr(params, name) for name in sections})
        read.clear()
