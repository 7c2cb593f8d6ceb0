"""Large tables: row groups as they are asked for, those last used kept within a limit of bytes."""

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.contract import TaskError
from tasks.data.readers import tables
from tasks.data.readers.tables import Column, open_parquet

SIZE = 1000


@pytest.fixture
def files(tmp_path, monkeypatch) -> list[Path]:
    """Two files of row groups of five and seven pictures, row i holding i; 64 kB of 100 may be kept."""
    monkeypatch.setattr(tables, "IN_MEMORY", 20 * SIZE)
    paths, row = [], 0
    for name, count, group in (("a", 52, 5), ("b", 49, 7)):
        column = pa.array([np.full(SIZE // 2, row + i, np.uint16).tobytes() for i in range(count)], pa.binary())
        paths.append(tmp_path / f"{name}.parquet")
        with pq.ParquetWriter(paths[-1], pa.schema([("image", pa.binary())])) as writer:
            writer.write_table(pa.table({"image": column}), row_group_size=group)
            writer.write_table(pa.table({"image": column[:0]}))
        row += count
    return paths


def test_any_order_gives_every_row_within_the_limit(files) -> None:
    column = Column(open_parquet(files), "image")
    order = np.random.default_rng(0).permutation(len(column)).tolist()
    for turn in (order, range(len(column)), order[::-1]):
        for i in turn:
            content = np.frombuffer(column.read(i), np.uint16)
            assert len(content) == SIZE // 2 and (content == i).all()
            assert column._kept["bytes"] <= tables.IN_MEMORY
            assert column._kept["bytes"] == sum(group.nbytes for group in column._kept["groups"].values())
    copy = pickle.loads(pickle.dumps(column))  # as a process that loads data gets it
    assert copy.read(77) == column.read(77) and set(copy._kept["groups"]) != set(column._kept["groups"])


def test_the_groups_last_used_stay(files, monkeypatch) -> None:
    column, read = Column(open_parquet(files), "image"), []
    real = pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda f, n, **more: read.append(n) or real(f, n, **more))
    for i in (0, 5, 10, 0, 15, 20, 0, 25, 1, 2):  # the first group is asked for again and again
        column.read(i)
    assert read == [0, 1, 2, 3, 4, 5]


def test_one_group_above_the_limit_is_read_and_a_torn_one_named(files, monkeypatch) -> None:
    monkeypatch.setattr(tables, "IN_MEMORY", SIZE)
    column = Column(open_parquet(files), "image")
    assert [np.frombuffer(column.read(i), np.uint16)[0] for i in (100, 0, 51, 52)] == [100, 0, 51, 52]
    table = open_parquet(files)
    whole = files[1].read_bytes()
    files[1].write_bytes(whole[:4] + bytes(2000) + whole[2004:])
    with pytest.raises(TaskError, match=r"b\.parquet: cannot be read as parquet"):
        Column(table, "image").read(52)
