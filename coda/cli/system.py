"""Errors of the operating system as errors of this library.

Steps and services explain their own files where they know more of them. Whatever comes as far as the command line is a
path that somebody typed, or a place that this machine does not give.
"""

import errno
import os

from coda.errors import CodaError, ConfigError, Problem, TransientError

_REMEDIES = {
    errno.ENOENT: ("nothing", "Check the path: it is not there."),
    errno.ENOTDIR: ("a file where a folder should be", "Check the path: a part of it is a file."),
    errno.EISDIR: ("a folder where a file should be", "Name a file."),
    errno.EEXIST: ("something of that name", "Choose another name, or remove what is there."),
    errno.ENOTEMPTY: ("a folder that is not empty", "Choose another folder, or empty this one."),
    errno.EACCES: ("no right to use it", "Choose another place, or get the right to use this one."),
    errno.EPERM: ("no right to use it", "Choose another place, or get the right to use this one."),
    errno.EROFS: ("a disk that may not be written", "Choose another place."),
    errno.ENOSPC: ("a full disk", "Free some space; the command can be repeated."),
    errno.EDQUOT: ("a full disk", "Free some space; the command can be repeated."),
    errno.ENAMETOOLONG: ("a name that is too long", "Choose a shorter one."),
    errno.ELOOP: ("links in a circle", "Correct the links."),
}


def explained(error: OSError | UnicodeError) -> CodaError:
    """Return the error to end with for what the operating system, or a file that is no text, made Python raise."""
    if isinstance(error, UnicodeError):
        problem = Problem("a file that was named", str(error)[:200], "text in UTF-8", "Check which file was named.")
        return ConfigError("A file is no text.", [problem])
    if isinstance(error, ConnectionError | TimeoutError):
        remedy = "Check that the service is up; the command can be repeated."
        problem = Problem("a service", error.strerror or str(error), "an answer", remedy)
        return TransientError("A service does not answer.", [problem])
    where = str(error.filename or "this machine")
    found, remedy = _REMEDIES.get(
        error.errno or 0, (error.strerror or str(error), "Check the path, or choose another.")
    )
    path = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else where
    problem = Problem(path, found, "a path that this command can use", remedy)
    return ConfigError(f"{path} cannot be used: {error.strerror or error}.", [problem])
