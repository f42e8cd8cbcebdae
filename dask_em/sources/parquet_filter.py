"""Row filters for Parquet: row groups that cannot match are left out, the rest are filtered in the task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dask_em.errors import DataError
from dask_em.sources.parquet_files import DataFile, check_unchanged, first_line, partition_value


@dataclass(frozen=True)
class Filter:
    """Rows to keep."""

    expression: Any  # pyarrow.compute.Expression
    schema: Any  # of the files and their folders

    def groups(self, file: DataFile) -> list[int]:
        """Row groups that may hold rows to keep, by their statistics and the file's folders."""
        matching = self._fragment(file, None).split_by_row_group(self.expression, schema=self.schema)
        return sorted(g.id for fragment in matching for g in fragment.row_groups)

    def read(self, file: DataFile, groups: Sequence[int], names: Sequence[str]) -> Any:
        """A table of the rows to keep of those row groups."""
        check_unchanged(file)
        fragment = self._fragment(file, groups)
        return fragment.to_table(schema=self.schema, columns=list(names), filter=self.expression, use_threads=False)

    def _fragment(self, file: DataFile, groups: Sequence[int] | None) -> Any:
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
        return ds.ParquetFileFormat().make_fragment(path, filesystem, known, None if groups is None else list(groups))


def make_filter(filters: Any, files: Sequence[DataFile]) -> Filter:
    """A filter from tuples as in pandas, or from a pyarrow expression."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    schema = files[0].metadata.schema.to_arrow_schema().remove_metadata()
    for key, _ in files[0].partition:
        if key not in schema.names:
            values = [partition_value(dict(f.partition)[key]) for f in files if key in dict(f.partition)]
            kinds = {type(v) for v in values} - {type(None)}
            kind = pa.string() if str in kinds or not kinds else pa.float64() if float in kinds else pa.int64()
            schema = schema.append(pa.field(key, kind))
    try:
        expression = filters if isinstance(filters, pc.Expression) else pq.filters_to_expression(filters)
        pa.dataset.dataset(schema.empty_table()).scanner(filter=expression)
    except (pa.ArrowException, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"filters={filters!r} cannot be applied ({first_line(error)}); the columns are {', '.join(schema.names)}: "
            "give tuples such as [('magnitude', '>', 0)], or a pyarrow expression."
        ) from error
    return Filter(expression, schema)
