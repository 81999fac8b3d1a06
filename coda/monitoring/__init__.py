"""What is monitored: the table of batches, metrics, the pages about drift, dashboards and alerts as code, the report.

`docs/monitoring.md` says what each family means; `docs/runbooks/` holds one page for each alert.
"""

from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from coda.settings import Settings


def history(
    settings: "Settings | None" = None,
    *,
    source: str | None = None,
    instrument: str | None = None,
    since: datetime | None = None,
) -> "pd.DataFrame":
    """Return the table of batches: one row for each number of each batch version that ever ended, oldest first.

    Args:
        settings: Where the platform bucket is; from the environment when not given.
        source: One laboratory.
        instrument: One microscope.
        since: Batches that ended then or later, with time zone.

    Returns:
        Columns of `coda.monitoring.batch_row`: `Facts` of the batch, then the fields of `Number`. `plate` is empty for
        a number of the whole batch. A batch without numbers has one row with an empty measure.

    Raises:
        TransientError: The platform bucket is away.
        ConfigError: Settings are missing, or the bucket may not be read.
    """
    from coda.monitoring.batch_table import read
    from coda.settings import read_settings
    from coda.storage.objects import store_for

    found = settings or read_settings()
    return read(store_for(found.platform, found), source=source, instrument=instrument, since=since)
