"""What can go wrong, each kind with the exit code a scheduled job reports for it."""

from __future__ import annotations

from collections.abc import Sequence


class DaskEMError(Exception):
    """Base of every error that this library raises on purpose."""

    exit_code = 1


class DataError(DaskEMError, ValueError):
    """The data cannot be fitted: the message names the place and the remedy."""

    exit_code = 65


class NotANumberError(DataError, TypeError):
    """A value is of a type that is no number."""


class RowError(DataError):
    """A value that the model cannot have made; whoever knows the block adds where it is."""

    def __init__(self, row: int, column: int, why: str) -> None:
        super().__init__(f"row {row}, column {column} {why}")
        self.row, self.column, self.why = row, column, why

    def __reduce__(self) -> tuple[type, tuple[int, int, str]]:
        return type(self), (self.row, self.column, self.why)


class ColumnError(DataError):
    """A column that cannot be fitted; whoever knows the columns' names says which it is."""

    def __init__(self, column: int, why: str) -> None:
        super().__init__(f"column {column} {why}")
        self.column, self.why = column, why

    def __reduce__(self) -> tuple[type, tuple[int, str]]:
        return type(self), (self.column, self.why)

    def named(self, names: Sequence[str] | None) -> DataError:
        """The error with the column's name, if columns have names."""
        return self if names is None else DataError(f"column {names[self.column]!r} {self.why}")


class CellError(DataError):
    """A value that cannot be read as what it should be; whoever knows the block adds which that is."""

    def __init__(self, row: int, why: str) -> None:
        super().__init__(f"row {row}, {why}")
        self.row, self.why = row, why

    def __reduce__(self) -> tuple[type, tuple[int, str]]:
        return type(self), (self.row, self.why)

    def located(self, where: str, offset: int | None = None) -> DataError:
        """The error with its block, and the row's number in the data if it is another and known."""
        of_all = f" (row {offset + self.row} of the data)" if offset else ""
        return DataError(f"{where}: row {self.row}{of_all}, {self.why}")


class DataChangedError(DataError):
    """The data is not what it was in an earlier pass, or when the checkpoint was written."""


class ConfigurationError(DaskEMError, ValueError):
    """A parameter, or a combination of parameters, is not usable."""

    exit_code = 78


class StoreError(DaskEMError, ValueError):
    """A model or checkpoint file cannot be read or written."""

    exit_code = 65


class DegenerateError(DaskEMError, ArithmeticError):
    """An M-step has no valid answer, for instance a covariance that is not positive definite."""


class LikelihoodFellError(DaskEMError, ArithmeticError):
    """The likelihood fell under plain EM, which no correct E-step and M-step allow."""


class ClusterError(DaskEMError, RuntimeError):
    """The Dask cluster is unreachable, has lost its workers, or runs other software."""

    exit_code = 75


def check_want(want: str, known: Sequence[str]) -> None:
    """Raise `ConfigurationError` for a question about rows that a model has no answer to."""
    if want not in known:
        raise ConfigurationError(f"want={want!r}: choose one of {', '.join(known)}")


# what ends one of several fits that share their passes, and not the others
ENDS_ONE = (ConfigurationError, DataError, DegenerateError, LikelihoodFellError)
