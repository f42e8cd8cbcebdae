"""What models and distributions are told of columns by name: where they are, and the levels of those of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self


class NamedColumns:
    """Base of what knows columns by position, and may be given them by name."""

    def resolved(self, names: Sequence[str] | None) -> Self:
        """The same, with columns by position where they were given by name, as the data names them."""
        return self

    def takes_text(self, name: str, position: int) -> bool:
        """Whether a column may be text: of it come codes 0, 1, ... of its levels, and NaN for nulls."""
        return False

    def with_levels(self, names: Sequence[str] | None, levels: Mapping[str, tuple[str, ...]]) -> Self:
        """The same, given the levels of columns of text, by name."""
        return self

    def levels_of(self, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """The levels of columns of text that it was given, by name."""
        return {}

    def categories_of(self, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """The categories of columns that have such, by name: levels, or codes in words."""
        return {}
