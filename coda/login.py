"""The name of the user who runs this."""

import getpass
import os


def login_name() -> str:
    """Return the login's name, or 'uid-<number>' where the system knows none, as in a container of any user number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"uid-{os.getuid()}"
