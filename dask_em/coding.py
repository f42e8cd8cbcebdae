"""Opens data whose columns of text a model takes as levels: they are found once, and blocks are read as their codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dask_em.engine import one_pass
from dask_em.errors import CellError, DataError
from dask_em.executors import default_executor
from dask_em.model import Executor, Model, Source
from dask_em.sources.dataframe import choose_columns
from dask_em.sources.levels import Levels, LevelsRequest, coded, declared, distinct, is_text, refuse_many
from dask_em.sources.opening import opened
from dask_em.sources.row_columns import RowColumns


def open_coded(
    data: Any, model: Model, *, known: Levels | None = None, executor: Executor | None = None, **opening: Any
) -> Source:
    """Open data as `dask_em.open` does, and columns of text that the model takes as codes of their levels.

    Parameters
    ----------
    data : array, frame, path, URL or Source
    model : Model
        Says which columns may be text.
    known : mapping of str to tuple of str, optional
        Levels of each column of text that was fitted.  Default: those that categories declare, in their order;
        of other columns of text they are looked for in one read of these columns, and sorted.
    executor : Executor, optional
        Who reads then.
    **opening
        Keywords of `dask_em.open`.

    Returns
    -------
    Source
        With `levels`.
    """

    def takes_text(name: Any, position: int) -> bool:
        return isinstance(name, str) and (model.takes_text(name, position) if known is None else name in known)

    if is_frame(data):
        meta = getattr(data, "_meta", data)
        beside = RowColumns.of(opening.get("weight"), opening.get("sequence")).named
        names = choose_columns(meta, opening.get("columns"), beside, "The data")
        text = [n for j, n in enumerate(names) if takes_text(n, j) and (known is not None or is_text(meta[n].dtype))]
        levels = {n: known[n] for n in text} if known is not None else _frame_levels(data, text, executor)
        source: Any = opened(coded_frame(data, levels) if levels else data, **opening)
    else:
        source = opened(data, takes_text=takes_text, **opening)
        text = list(getattr(source, "text", ()))
        _refuse_numbers(source, text, known)
        levels = {} if not text else {n: known[n] for n in text} if known is not None else _read(source, text, executor)
        source = source.coded(levels) if levels else source
    if levels:
        source.levels = levels
    return source


def is_frame(data: Any) -> bool:
    """Whether it is a pandas or a Dask frame."""
    kind = type(data)
    return kind.__name__ == "DataFrame" and kind.__module__.split(".")[0] in ("pandas", "dask", "dask_expr")


def coded_frame(frame: Any, levels: Levels) -> Any:
    """A pandas or Dask frame with codes in place of text; of a Dask frame, each partition once it is computed."""
    if hasattr(frame, "_meta"):
        present = [n for n in levels if n in frame.columns]
        meta = frame._meta.assign(**{n: frame._meta[n].isna().astype(float) for n in present})
        return frame.map_partitions(coded, dict(levels), meta=meta)
    try:
        return coded(frame, levels)
    except CellError as error:
        raise error.located("the data frame") from None


def _frame_levels(frame: Any, text: list[str], executor: Executor | None) -> dict[str, tuple[str, ...]]:
    meta = getattr(frame, "_meta", frame)
    found = {n: declared(meta[n].dtype) for n in text}
    unknown = [n for n in text if found[n] is None]
    if unknown and meta is frame:
        looked: Mapping[str, tuple[str, ...]] = {n: tuple(sorted(distinct(frame[n], n))) for n in unknown}
    elif unknown:
        from dask_em.sources.dask_collection import DaskLevelsSource

        looked = _answer(DaskLevelsSource(frame, unknown), unknown, executor)
    else:
        looked = {}
    levels = {n: looked[n] if own is None else own for n, own in found.items()}
    for n, own in levels.items():
        refuse_many(n, own)
    return levels


def _read(source: Any, text: list[str], executor: Executor | None) -> dict[str, tuple[str, ...]]:
    return _answer(source.survey(), text, executor)


def _answer(survey: Any, text: list[str], executor: Executor | None) -> dict[str, tuple[str, ...]]:
    reader = executor or default_executor()
    try:
        found: dict[str, tuple[str, ...]] = one_pass(survey, [LevelsRequest(tuple(text))], reader).answers[0]
    finally:
        reader.close()
    return found


def _refuse_numbers(source: Any, text: list[str], known: Levels | None) -> None:
    """Raise where a column that was fitted as text is none here."""
    numbers = [n for n in known or () if n not in text and n in (source.feature_names or ())]
    if numbers:
        raise DataError(
            f"Column {numbers[0]!r} of {source.where} holds numbers, where the model was "
            "fitted to text: give the levels themselves."
        )
