"""Where plate stores lie that are not in their batch folder: by content, in the data store."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from coda.contracts.base import Contract, Part

STORES_NAME = "stores.json"
"""File of a batch folder with the `StoreReferences` of its plates; absent where all stores lie in the folder."""

Md5 = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class StoreReference(Part):
    """One plate store, named by what is in it."""

    store: str = Field(pattern=r"^[^/\\\x00]+$", max_length=255, description="File name, as the field index has it.")
    md5: Md5 = Field(description="MD5 of its bytes: with it, DVC's key in the data store.")
    size_bytes: int = Field(ge=0)


class StoreReferences(Contract):
    """The plate stores of one batch that lie in the data store."""

    stores: tuple[StoreReference, ...] = ()

    @classmethod
    def beside(cls, folder: Path) -> Self:
        """Read the references of a batch folder; none where all of its stores lie in it."""
        path = folder / STORES_NAME
        return cls.read(path) if path.is_file() else cls()

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        names = [item.store for item in self.stores]
        if len(set(names)) < len(names):
            message = f"each store once, but found {sorted(names)}"
            raise ValueError(message)
        return self

    def find(self, store: str) -> StoreReference | None:
        """Return the reference of a store, or None for one that is not listed."""
        return next((item for item in self.stores if item.store == store), None)
