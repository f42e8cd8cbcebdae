"""What ``fit`` and ``select`` are told beside hyperparameters: data, outputs, and where to run."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Self

from dask_em.cli.places import columns_of, data_of, options_for, refuse_clash
from dask_em.cli.program import one_line
from dask_em.errors import ConfigurationError

_PLACE = ("scheduler", "workers", "threads_per_worker", "memory_limit", "threads")


@dataclass(frozen=True)
class Plan:
    """The options of a fit that are no hyperparameters.

    Parameters
    ----------
    data : tuple of str
    out : str
        Where the model is saved.
    overwrite, quiet : bool
    checkpoint, weight, missing_chunks, columns, filters, storage_options : optional
        As the options of these names are read.
    table : str, optional
        Where a table is written.
    place : dict
        What `session` takes.
    """

    data: tuple[str, ...]
    out: str
    overwrite: bool
    quiet: bool
    weight: str | None
    columns: list[str] | None
    filters: Any
    storage_options: dict[str, Any] | None
    missing_chunks: str
    checkpoint: str | None = None
    table: str | None = None
    sequence: str | None = None
    vocabulary: str | None = None
    place: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def take(cls, data: tuple[str, ...], options: dict[str, Any]) -> Self:
        """Take from the options what is none of the estimator's, and leave the rest."""
        place = {name: options.pop(name) for name in _PLACE}
        own = {name: options.pop(name) for name in cls.__dataclass_fields__ if name in options}
        return cls(data, **own, place=place)

    def check_outputs(self) -> None:
        """Refuse outputs that would replace data, or each other, or what nobody allowed to be replaced."""
        from dask_em.sinks.staging import check_output

        if self.checkpoint is not None:
            refuse_clash([*self.data, self.out], self.checkpoint)
            check_output(self.checkpoint, self._options(self.checkpoint), overwrite=True)
        refuse_clash(self.data, self.out)
        if self.table is not None:
            others = [self.out] if self.checkpoint is None else [self.out, self.checkpoint]
            refuse_clash([*self.data, *others], self.table)
        for path in (self.out, self.table, self.checkpoint):
            if path is not None and os.path.isdir(path):
                raise ConfigurationError(f"{path} is a folder, but a file is to be written: choose another name")
        overwrite = self.overwrite or self._goes_on()
        for path in (self.out, self.table):
            if path is not None:
                check_output(path, self._options(path), overwrite=overwrite)

    def _goes_on(self) -> bool:
        """Whether this command was interrupted before: then what it left at `out` is its own to replace."""
        from dask_em import load, store
        from dask_em.errors import StoreError

        if self.checkpoint is None:
            return False
        if not store.exists(self.checkpoint, storage_options=self._options(self.checkpoint)):
            return False
        try:
            left = load(self.out, storage_options=self._options(self.out))
        except StoreError:
            return False
        return bool(left.status_ == "interrupted")

    def _options(self, path: str) -> dict[str, Any] | None:
        return options_for(path, self.storage_options)

    def estimator(self) -> dict[str, Any]:
        """What an estimator is told of the checkpoint."""
        if self.checkpoint is None:
            return {}
        return {"checkpoint": self.checkpoint, "checkpoint_options": self._options(self.checkpoint)}

    def rows(self, columns: list[str] | None = None) -> dict[str, Any]:
        """What `fit` and `select` are told of the data; columns: those that are read, if no option says so."""
        return {
            "X": data_of(self.data),
            "sample_weight": self.weight,
            "columns": columns_of(self.data, self.columns or columns, self.storage_options),
            "filters": self.filters,
            "storage_options": self.storage_options,
            "missing_chunks": self.missing_chunks,
            **({} if self.sequence is None else {"sequence": self.sequence}),
            **({} if self.vocabulary is None else {"vocabulary": self.vocabulary}),
        }

    def save(self, estimator: Any) -> None:
        """Save the model, and nothing of how this run was made."""
        estimator.callbacks = estimator.checkpoint_options = None
        estimator.save(self.out, storage_options=self._options(self.out))

    def write_table(self, text: str) -> None:
        """Write the table whole, if one is wanted."""
        from dask_em import store_file

        if self.table is not None:
            store_file.write(self.table, text.encode(), self._options(self.table), True)

    def how_to_go_on(self) -> str:
        """What can be done after an interrupt."""
        if self.checkpoint is None:
            return "the model so far is saved; with --checkpoint PATH a fit can go on where it stopped"
        return one_line(f"run the same command again to go on from {self.checkpoint}")
