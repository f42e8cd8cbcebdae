"""Several values of one option, as a grid has them."""

from __future__ import annotations

import re
from typing import Any

import click

_MOST = 10_000
_DASHED = re.compile(r"\s*\d+-\d+\s*$")


class Values(click.ParamType):
    """Values with commas between them, each as an option takes it; of whole numbers also ranges, ends included.

    Parameters
    ----------
    each : click.ParamType
        Reads and checks one value.
    """

    def __init__(self, each: click.ParamType) -> None:
        self.each = each
        self.name = each.name
        self.whole = isinstance(each, click.types.IntParamType)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[Any]:
        """The list of them, in the order given, each once."""
        if isinstance(value, list):
            return value
        found: list[Any] = []
        for piece in str(value).split(","):
            if self.whole and _DASHED.match(piece):
                self.fail(f"{piece!r} should be a range such as {piece.strip().replace('-', ':')}", param, ctx)
            texts = self._range(piece.strip(), param, ctx) if self.whole and ":" in piece else [piece.strip()]
            if len(found) + len(texts) > _MOST:
                self.fail(f"{value!r} is more than {_MOST:,} values: ask for fewer", param, ctx)
            found += [self.each.convert(text, param, ctx) for text in texts]
        return list(dict.fromkeys(found))

    def _range(self, text: str, param: click.Parameter | None, ctx: click.Context | None) -> range:
        try:
            first, last, step = (int(part) for part in (f"{text}:1" if text.count(":") == 1 else text).split(":"))
        except ValueError:
            self.fail(f"{text!r} should be a range such as 1:20 or 1:20:2, both ends included", param, ctx)
        if last < first or step < 1:
            self.fail(f"{text!r} holds nothing: a range goes up, such as 1:20", param, ctx)
        return range(first, last + 1, step)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """As help shows it."""
        return "VALUES"

    def hint(self) -> str:
        """What to add to the help of an option."""
        if isinstance(self.each, click.Choice):
            return f"Of {', '.join(map(str, self.each.choices))}; several with commas between them."
        if self.whole:
            return "Several as a list 2,4,8 or a range 1:20 or 1:20:2, ends included."
        return "Several with commas between them."


def gridded(option: click.Option) -> None:
    """Make an option take several values."""
    several = Values(option.type)
    option.type, option.metavar = several, "VALUES"
    option.help = f"{option.help}  {several.hint()}" if option.help else several.hint()
