"""Pictures and labels in tables: parquet as the Hub and others write it, and folders saved by Hugging Face datasets."""

from __future__ import annotations

import bisect
import collections
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tasks.data.documents import read_json
from tasks.data.errors import Missing, Wrong, as_one_line, nearest, shown
from tasks.data.readers.files import read_bytes
from tasks.data.records import Records

if TYPE_CHECKING:
    import pyarrow as pa

BASE64 = ("iVBORw0KGgo", "/9j/", "UklGR", "R0lGOD")  # as PNG, JPEG, WebP and GIF begin in it
IN_MEMORY = 1 << 30  # bytes of files up to which a column of pictures is held in memory
# usual names of columns, the first that is there
IMAGES = ("image", "img", "images", "picture", "pixels", "jpg", "png", "webp", "image_bytes", "bytes")
LABELS = ("label", "labels", "fine_label", "class", "target", "cls", "category", "class_id", "label_id", "y")
NAMES = ("filename", "file_name", "image_name", "path", "__key__", "name", "id", "image_id")
CAPTIONS = ("captions", "caption", "sentences", "texts", "text", "raw", "sentence")


@dataclass(frozen=True)
class Table:
    """Rows of parquet or Arrow files: columns on demand. `features`: what Hugging Face knows of the columns."""

    paths: tuple[Path, ...]
    rows: tuple[int, ...]  # of each file
    schema: pa.Schema
    features: Mapping[str, Any]
    arrow: bool = False

    def __len__(self) -> int:
        return sum(self.rows)

    def place(self, i: int) -> tuple[Path, int]:
        """(file, row in it) of a row of all."""
        for path, rows in zip(self.paths, self.rows, strict=True):
            if i < rows:
                return path, i
            i -= rows
        raise IndexError(i)

    def column(self, name: str) -> list[Any]:
        """All values of a column that is no picture.

        Raises: Wrong where they cannot be read.
        """
        try:
            return self.read([name])[name].to_pylist()
        except (ValueError, OverflowError) as error:  # invalid UTF-8, dates outside the range of Python
            if isinstance(error, Wrong):
                raise
            raise Wrong(f"cannot be read: {as_one_line(error)}", path=self.paths[0], field=name) from error

    def read(self, names: Sequence[str]) -> pa.Table:
        """Some columns of all rows."""
        import pyarrow as pa

        return pa.concat_tables([self._file(path, names) for path in self.paths])

    def _file(self, path: Path, names: Sequence[str]) -> pa.Table:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            if self.arrow:
                return _arrow(path).select(list(names)).cast(_only(self.schema, names))
            return pq.read_table(path, columns=list(names)).cast(_only(self.schema, names))
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise _unreadable(path, error) from error

    def choose(self, usual: Sequence[str], asked: str, what: str, option: str) -> str:
        """The column of a kind: the one that was asked for, else the first of the usual names.

        Raises: Wrong naming the columns there are, and the option that chooses one.
        """
        present = self.schema.names
        for name in [asked] if asked else usual:
            if name in present:
                return name
        near = nearest(asked, present) if asked else []
        said = f"has no column {asked!r}" if asked else f"has no column of {what} by a usual name ({', '.join(usual)})"
        listed = f"nearest: {', '.join(near)}" if near else f"it has: {', '.join(present) or 'none'}"
        raise Wrong(said, path=self.paths[0], advice=f"{listed}; the option {option} names the column")


def open_parquet(paths: Sequence[Path]) -> Table:
    """Parquet files with the same columns, one after another.

    Raises: Missing for no files. Wrong for one that is torn, no parquet, or of other columns than the first.

    Example: `open_parquet(sorted(folder.glob("train-*.parquet"))).schema.names`
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows, schema = [], None
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                own, count = file.schema_arrow, file.metadata.num_rows
                names = own.names
        except FileNotFoundError:
            raise Missing("no such file", path=path) from None
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise _unreadable(path, error) from error
        rows.append(count)
        schema = schema or own
        if lacking := [name for name in schema.names if name not in names]:
            raise Wrong(f"has no column {lacking[0]!r}, which {paths[0].name} has", path=path,
                        advice=f"it has: {', '.join(names) or 'none'}")  # fmt: skip
    assert schema is not None, "no files"
    return Table(tuple(paths), tuple(rows), schema, _features(schema))


def open_saved(folder: Path) -> Table:
    """A split that `datasets`' `save_to_disk` wrote: Arrow files and `state.json`. Needs pyarrow alone.

    Raises: Missing where `state.json` or one of its files is not there. Wrong where one cannot be read.
    """
    state = folder / "state.json"
    if not state.is_file():
        raise Missing("no state.json: it is no folder saved by Hugging Face datasets", path=folder)
    content = read_json(state)
    listed = content.get("_data_files") if isinstance(content, dict) else None
    names = Records(listed, state, "data file", member="_data_files").texts("filename")
    if not names:
        raise Wrong("lists no files", path=state, field="_data_files")
    paths = tuple(folder / name for name in names)
    tables = [_arrow(path) for path in paths]
    info = folder / "dataset_info.json"
    known = read_json(info) if info.is_file() else {}
    features = known.get("features") if isinstance(known, dict) else None
    schema = tables[0].schema
    return Table(
        paths, tuple(len(table) for table in tables), schema,
        features if isinstance(features, dict) else _features(schema), arrow=True,
    )  # fmt: skip


@dataclass(frozen=True)
class Column:
    """Pictures in a column: bytes, Hugging Face's struct of bytes and path, or paths beside the files.

    Small tables are held in memory; of large ones the row groups last read, up to as many bytes.
    """

    table: Table
    name: str
    _kept: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    single: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.table)

    def read(self, i: int) -> bytes:
        value = self._value(i)
        if isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes) and value:
            return value
        path, row = self.table.place(i)
        if isinstance(value, str) and (value.startswith(BASE64) or len(value) > 4000):
            said = f"holds text, {shown(value, 20)}, and no picture"
            advice = "pictures in base64 are not read: write their bytes"
            raise Wrong(said, path=path, place=f"row {row}", field=self.name, advice=advice)
        if isinstance(value, str) and value:
            return read_bytes(path.parent / value)
        raise Wrong(f"holds no picture, but {shown(value)}", path=path, place=f"row {row}", field=self.name)

    def where(self, i: int) -> str:
        path, row = self.table.place(i)
        return f"{path}: row {row}"

    def files(self) -> Sequence[str]:
        return [str(path) for path in self.table.paths]

    def open(self) -> None:
        if "all" not in self._kept:
            small = self.table.arrow or sum(p.stat().st_size for p in self.table.paths) <= IN_MEMORY
            self._kept["all"] = self.table.read([self.name])[self.name] if small else None

    def _value(self, i: int) -> Any:
        self.open()
        if self._kept["all"] is not None:
            return self._kept["all"][i].as_py()
        starts = self._starts()
        at = bisect.bisect_right(starts, i, key=lambda group: group[0]) - 1
        return self._group(at)[i - starts[at][0]].as_py()

    def _starts(self) -> list[tuple[int, Path, int]]:
        """(first row of all, file, number in it) of every row group that has rows."""
        import pyarrow.parquet as pq

        if "starts" not in self._kept:
            starts, row, files = [], 0, {}
            for path in self.table.paths:
                files[path] = file = pq.ParquetFile(path, memory_map=True)
                for number in range(file.metadata.num_row_groups):
                    if rows := file.metadata.row_group(number).num_rows:
                        starts.append((row, path, number))
                        row += rows
            self._kept.update(starts=starts, files=files, groups=collections.OrderedDict(), bytes=0)
        return self._kept["starts"]

    def _group(self, at: int) -> Any:
        """The pictures of a row group; those last used are kept, as many bytes as a table in memory may have."""
        import pyarrow as pa

        groups = self._kept["groups"]
        if at not in groups:
            _, path, number = self._kept["starts"][at]
            try:
                groups[at] = self._kept["files"][path].read_row_group(number, columns=[self.name])[self.name]
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                raise _unreadable(path, error) from error
            self._kept["bytes"] += groups[at].nbytes
            while self._kept["bytes"] > IN_MEMORY and len(groups) > 1:
                self._kept["bytes"] -= groups.popitem(last=False)[1].nbytes
        groups.move_to_end(at)
        return groups[at]

    def __getstate__(self) -> dict[str, Any]:
        return {"table": self.table, "name": self.name, "_kept": {}}  # open files stay in their process


def _arrow(path: Path) -> pa.Table:
    import pyarrow as pa

    try:
        return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
    except FileNotFoundError:
        raise Missing("no such file", path=path) from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise Wrong(f"cannot be read as an Arrow stream: {_first_line(error)}", path=path) from error


def _features(schema: pa.Schema) -> Mapping[str, Any]:
    """What Hugging Face's metadata say of the columns; {} where there are none."""
    try:
        found = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _only(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([schema.field(name) for name in names])


def _unreadable(path: Path, error: Exception) -> Wrong:
    return Wrong(f"cannot be read as parquet: {_first_line(error)}", path=path)


def _first_line(error: Exception) -> str:
    return as_one_line((str(error).splitlines() or [type(error).__name__])[0])
