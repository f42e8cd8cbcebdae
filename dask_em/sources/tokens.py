"""Texts as bags of words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dask_em.errors import ConfigurationError
from dask_em.sources.corpus import Bag


@dataclass(frozen=True)
class Tokens:
    """How a text is divided into words.

    Parameters
    ----------
    pattern : str
        A regular expression of a word; its group, if it has one.
    lowercase : bool
    stop_words : frozenset of str
        Words that do not count.
    """

    pattern: str = r"(?u)\b\w\w+\b"
    lowercase: bool = True
    stop_words: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        try:
            groups = re.compile(self.pattern).groups
        except (re.error, TypeError) as error:
            raise ConfigurationError(f"token_pattern={self.pattern!r} is no regular expression: {error}") from None
        if groups > 1:
            raise ConfigurationError(f"token_pattern={self.pattern!r} has {groups} groups: a word is one of them")

    @cached_property
    def _find(self) -> Any:
        return re.compile(self.pattern).findall

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_find"}

    def bag(self, texts: Iterable[str | None]) -> Bag:
        """The words of some texts; a missing one has none."""
        number = dict[str, int]()
        codes, ends = list[int](), [0]
        find, stop = self._find, self.stop_words
        for text in texts:
            said = "" if text is None else text.lower() if self.lowercase else text
            for word in find(said):
                if word not in stop:
                    codes.append(number.setdefault(word, len(number)))
            ends.append(len(codes))
        return Bag(np.array(ends), np.array(codes, dtype=np.int64), None, list(number))
