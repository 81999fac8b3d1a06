"""Errors of the database behind MLflow: which are an outage, and which wait for a person."""

import re

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

_OF_A_PERSON = re.compile(
    r"authentication failed|access denied|login failed|permission denied|no pg_hba|certificate"
    r"|(database|role|relation|table|column|user) .{0,200}does(n't| not) exist|unknown (database|column)"
    r"|no such (table|column)|has no column|undefined|unexpected state|database schema|unable to open"
    r"|read-?only|is full|not a database|malformed",
    re.IGNORECASE,
)
"""What databases call a refusal; sqlite and PostgreSQL's client raise one class for these and for outages."""

REMEDY = (
    "Let MLFLOW_TRACKING_URI name MLflow's own database and a user with its rights; if its tables are of another "
    "MLflow, back it up and run `mlflow db upgrade` with its address."
)


def refused(error: SQLAlchemyError) -> bool:
    """Return whether an error of SQLAlchemy's lasts until a person acts; else the database is away or busy."""
    if isinstance(error, OperationalError | InterfaceError):
        return bool(_OF_A_PERSON.search(str(error.orig)))
    return not (isinstance(error, DBAPIError) and error.connection_invalidated)


def refusal_in(words: str) -> bool:
    """Return whether an error of MLflow, which quotes its database, is such a refusal."""
    return bool(re.search(r"\(\w+\.\w*Error\)|migration", words) and _OF_A_PERSON.search(words))
