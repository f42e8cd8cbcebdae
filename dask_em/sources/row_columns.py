"""What a row carries beside its values, weight and sequence: what each is called, and which columns hold them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

WORDS = {"weight": "weights", "sequence": "sequence ids"}  # of the fields of `Chunk`, in messages


class RowColumns(NamedTuple):
    """Names of the columns that hold the rows' weights and sequence ids, where columns do."""

    weight: str | None = None
    sequence: str | None = None

    @property
    def named(self) -> list[str]:
        """The names that were given."""
        return [name for name in self if name is not None]

    @property
    def given(self) -> dict[str, str | None]:
        """The names as keywords of a message that refuses them."""
        return {f"{field} as a column's name": name for field, name in self._asdict().items()}

    def after(self, columns: Sequence[Any]) -> list[Any]:
        """Those columns, then these where they are none of them: each is read once."""
        return list(dict.fromkeys([*columns, *self.named]))

    @classmethod
    def of(cls, weight: Any, sequence: Any) -> RowColumns:
        """Those of the keywords of `open` that name a column; arrays do not."""
        return cls(*(value if isinstance(value, str) else None for value in (weight, sequence)))
