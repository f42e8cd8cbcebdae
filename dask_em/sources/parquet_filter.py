"""Row filters for Parquet: row groups that cannot match are left out, the rest are filtered in the task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dask_em.errors import DataError
from dask_em.sources.parquet_files import DataFile, first_line, partition_value


@dataclass(frozen=True)
class Filter:
    """Rows to keep."""

    expression: Any  # pyarrow.compute.Expression
    schema: Any  # of the files and their folders

    def groups(self, file: DataFile) -> list[int]:
        """Row groups that may hold rows to keep, by their statistics and the file's folders."""
        matching = self._fragment(file).split_by_row_group(self.expression, schema=self.schema)
        return sorted(g.id for fragment in matching for g in fragment.row_groups)

    def columns(self, file: DataFile) -> list[str]:
        """Columns of the file that the expression mentions; maybe more, never fewer."""
        text = str(self.expression)
        return [c for c in self.schema.names if c in text and c not in dict(file.partition)]

    def apply(self, table: Any, file: DataFile) -> Any:
        """The rows to keep of a table, in their order (which a dataset's scanner does not promise)."""
        import pyarrow as pa
        from pyarrow.acero import Declaration, FilterNodeOptions, TableSourceNodeOptions

        for key, text in file.partition:
            kind = self.schema.field(key).type
            value = pa.scalar(text if pa.types.is_string(kind) else partition_value(text), kind)
            constant = pa.chunked_array([pa.repeat(value, table.num_rows)])
            table = table.append_column(key, constant)
        steps = [
            Declaration("table_source", TableSourceNodeOptions(table)),
            Declaration("filter", FilterNodeOptions(self.expression)),
        ]
        return Declaration.from_sequence(steps).to_table(use_threads=False)

    def _fragment(self, file: DataFile) -> Any:
        import pyarrow.compute as pc
        import pyarrow.dataset as ds
        import pyarrow.fs as pafs

        known = pc.scalar(True)
        for key, text in file.partition:
            value = partition_value(text)
            field = pc.field(key)
            known = known & (field.is_null() if value is None else field == value)
        if file.location.is_local:
            filesystem: Any = pafs.LocalFileSystem()
            path = file.location.url
        else:
            fs, path = file.location.resolve()
            filesystem = pafs.PyFileSystem(pafs.FSSpecHandler(fs))
        return ds.ParquetFileFormat().make_fragment(path, filesystem, known)


def make_filter(filters: Any, files: Sequence[DataFile]) -> Filter:
    """A filter from tuples as in pandas, or from a pyarrow expression."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    folders = _folder_fields(files)
    schema = _with_fields(files[0].metadata.schema.to_arrow_schema().remove_metadata(), folders)
    where = files[0].location.shown
    try:
        expression = filters if isinstance(filters, pc.Expression) else pq.filters_to_expression(filters)
        for file in files:  # each must have what the expression mentions
            where = file.location.shown
            own = _with_fields(file.metadata.schema.to_arrow_schema().remove_metadata(), folders)
            ds.dataset(own.empty_table()).scanner(filter=expression)
    except (pa.ArrowException, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"filters={filters!r} cannot be applied to {where} ({first_line(error)}); "
            f"the columns are {', '.join(schema.names)}: "
            "give tuples such as [('magnitude', '>', 0)], each with a value of its column's own type, or a pyarrow "
            "expression."
        ) from error
    return Filter(expression, schema)


def _folder_fields(files: Sequence[DataFile]) -> dict[str, Any]:
    """Arrow types of what the folders' names say."""
    import pyarrow as pa

    found: dict[str, set[type]] = {}
    for file in files:
        for key, text in file.partition:
            found.setdefault(key, set()).add(type(partition_value(text)))
    return {
        key: pa.string() if str in kinds else pa.float64() if float in kinds else pa.int64()
        for key, kinds in found.items()
    }


def _with_fields(schema: Any, fields: dict[str, Any]) -> Any:
    import pyarrow as pa

    for name, kind in fields.items():
        if name not in schema.names:
            schema = schema.append(pa.field(name, kind))
    return schema
