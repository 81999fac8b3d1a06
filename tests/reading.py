"""Parameters that note what is read of them: who reads which section (tests of trainers and steps)."""

import sys

from coda.config import Params


class Reading:
    """Parameters that note which of their sections are read."""

    def __init__(self, params: Params) -> None:
        sections, read = set(Params.model_fields), set[str]()

        class Noting(Params):
            def __getattribute__(self, name):
                # the names of budgets are looked up for messages; that is no reading of their values
                if name in sections and sys._getframe(1).f_globals["__name__"] != "coda.config.budgets":
                    read.add(name)
                return super().__getattribute__(name)

            def model_dump(self, **options):
                read.update(options.get("include") or ())
                return super().model_dump(**options)

        self.read = read
        self.params = Noting.model_construct(**{name: getattr(params, name) for name in sections})
        read.clear()
