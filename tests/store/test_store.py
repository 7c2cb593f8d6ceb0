"""Rows are whole or absent, whatever kills their writer."""

import builtins
import errno
import io
import json
import multiprocessing
import os
import tempfile
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.store import Row, Store, key_of, rows_file


def row(key: str, status: str = "ok", **more: object) -> dict:
    own = {"task": "toy", "backbone": "tiny", "split": "test", "eval_grid": 4, "metrics": {"top1": 0.5}}
    return {**own, "row_key": key, "status": status, **more}


def test_keys_depend_on_content_alone() -> None:
    assert key_of({"a": 1, "b": (1, 2)}) == key_of({"b": [1, 2], "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2}) != key_of({"b": 2})


def test_torn_tail_is_passed_over_and_cut_off_by_the_next_writer(tmp_path) -> None:
    store = Store(tmp_path)
    store.append([row("a"), row("b")])
    whole = store.path.read_bytes()
    line = whole.split(b"\n")[0]
    for cut in (1, len(line) // 2, len(line)):  # a line without its end was not recorded, even where all else is there
        store.path.write_bytes(whole + line[:cut])
        seen = Store(tmp_path)
        with pytest.warns(UserWarning, match="rows.jsonl:3: has no end, passed over: cut off, or still being written"):
            assert [r["row_key"] for r in seen.rows()] == ["a", "b"]
        assert set(seen.done()) == {"a", "b"} and len(seen.faults) == 1
    store.append([row("c", note="x" * 100_000)])
    assert [r["row_key"] for r in store.rows()] == ["a", "b", "c"]
    assert all(json.loads(line) for line in store.path.read_text().splitlines())


def test_tail_longer_than_a_block_is_cut_off_too(tmp_path) -> None:
    store = Store(tmp_path)
    store.append([row("a")])
    with open(store.path, "ab") as file:
        file.write(b'{"row_key": "' + b"x" * 200_000)
    store.append([row("b")])
    assert [r["row_key"] for r in store.rows()] == ["a", "b"]


def _write_many(folder: str, name: str) -> None:
    for i in range(50):
        Store(folder).append([row(f"{name}{i}", note=name * 3000)])


def test_writers_at_once_lose_and_tear_nothing(tmp_path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(str(tmp_path), name)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(r["row_key"] for r in Store(tmp_path).rows()) == sorted(f"{n}{i}" for n in "abc" for i in range(50))


def test_failures_never_count_and_the_newest_row_wins(tmp_path) -> None:
    store = Store(tmp_path)
    store.append([row("a", "failed"), row("b", note=1)])
    store.append([row("b", note=2)])
    assert set(store.done()) == {"b"} and store.row(store.done()["b"])["note"] == 2


@pytest.mark.parametrize("place", ["metrics", "cost", "training"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan"), np.float64("-inf")])
def test_values_that_are_not_finite_are_refused(tmp_path, place, value) -> None:
    store = Store(tmp_path)
    with pytest.raises(ValueError, match=rf"{place}\.a.* is -?(nan|inf).*every number is finite"):
        store.append([row("a"), row("b", **{place: {"a": value if place == "metrics" else [1.0, {"b": value}]}})])
    assert store.rows() == [] and not store.done()


class Counted(io.BufferedReader):
    """A file of rows that counts the bytes that are read of it."""

    total = 0

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(size)
        Counted.total += len(content)
        return content


def test_the_index_reads_every_byte_once(tmp_path, monkeypatch) -> None:
    def counted(path, mode, **more):
        return Counted(io.FileIO(path)) if mode == "rb" else builtins.open(path, mode, **more)

    store = Store(tmp_path)
    monkeypatch.setattr(rows_file, "open", counted, raising=False)
    Counted.total = 0
    for i in range(50):
        store.append([row(f"k{i}", cell_key=f"c{i % 5}", view_key=str(i))])
        assert [e.row_key for e in store.entries(f"c{i % 5}")][-1] == f"k{i}"
        assert len(store.done()) == i + 1
    assert Counted.total == store.path.stat().st_size


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.integers(0, 3), st.integers(0, 3), st.booleans()),
            st.tuples(st.just("tear"), st.integers(1, 40)),
            st.tuples(st.just("foreign"), st.sampled_from(['{"a": 1}', "nonsense", "[]", '{"task": NaN}', ""])),
            st.tuples(st.just("replace")),
        ),
        max_size=12,
    )
)
@settings(max_examples=40, deadline=None)
def test_an_index_that_grows_is_one_that_is_made_anew(steps) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        watching, writing = Store(folder), Store(folder)
        for step, *what in steps:
            if step == "append":
                key, cell, ok = what
                skipped = {"test": {"count": 1}} if key == 3 else {}
                line = row(f"k{key}", "ok" if ok else "failed", cell_key=f"c{cell}", skipped=skipped)
                writing.append([line] * (1 + key))
            elif step == "tear":
                with open(writing.path, "ab") as file:
                    file.write(b'{"task": "' + b"x" * what[0])
            elif step == "foreign":
                writing.append([row("before")])  # cuts a torn tail, which would take this line in
                with open(writing.path, "ab") as file:
                    file.write(what[0].encode() + b"\n")
            elif writing.path.exists():
                content = writing.path.read_bytes()
                writing.path.unlink()
                writing.path.write_bytes(content[: len(content) // 2])
            fresh = Store(folder)
            assert list(watching.entries()) == list(fresh.entries()) and watching.done() == fresh.done()
            rows = fresh.rows()
            assert [watching.row(e) for e in watching.entries()] == rows
            for cell in ("c0", "c3", ""):
                own = [r for r in rows if (r.cell_key or "") == cell]
                assert [watching.row(e) for e in watching.entries(cell)] == own


def test_a_claim_is_one_runners_and_dies_with_it(tmp_path) -> None:
    store = Store(tmp_path)
    ready, stop = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with store.claim("cell"):
            os.write(ready[1], b"x")
            os.read(stop[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    with store.claim("cell") as ours:
        assert not ours
    with store.claim("other") as ours:
        assert ours
    os.kill(child, 9)
    os.waitpid(child, 0)
    with store.claim("cell") as ours:
        assert ours


def test_a_disk_without_locks_is_named(tmp_path, monkeypatch) -> None:
    def flock(file, how) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("benchmarks.store.files.fcntl.flock", flock)
    with pytest.raises(ValueError, match="has no flock .No locks available.; choose another --out"):
        Store(tmp_path).append([row("a")])
    with pytest.raises(ValueError, match="has no flock"), Store(tmp_path).claim("cell"):
        pass


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "array", "object", "crc"])
def test_a_file_of_samples_that_cannot_be_read_is_named_and_nothing_more(tmp_path, damage) -> None:
    store = Store(tmp_path)
    good = Row.from_json(row("good", samples=store.save_samples("good", {"ids": np.arange(3)})))
    bad = Row.from_json(
        row("bad", samples=store.save_samples("bad", {"ids": np.arange(900), "x": np.random.rand(900)}))
    )
    path = tmp_path / "samples" / "bad.npz"
    content = path.read_bytes()
    if damage in ("cut", "empty", "text"):
        path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"hello"}[damage])
    elif damage == "crc":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :])
    elif damage == "array":
        with open(path, "wb") as file:
            np.save(file, np.arange(3))
    else:
        with open(path, "wb") as file:
            np.savez(file, ids=np.array([{"a": 1}], dtype=object))
    with pytest.warns(UserWarning, match="bad.npz cannot be read, it is cut short or not a file of samples"):
        assert store.samples(bad) is None
    assert store.samples(bad) is None and len(store.faults) == 1  # said once
    assert store.samples(good)["ids"].tolist() == [0, 1, 2]


def test_samples_that_are_missing_are_said_once(tmp_path) -> None:
    store = Store(tmp_path)
    with pytest.warns(UserWarning, match="samples: per-sample files of some rows are missing"):
        assert [store.samples({"samples": f"samples/{i}.npz"}) for i in range(3)] == [None] * 3
    assert len(store.faults) == 1 and store.samples({}) is None


def test_a_row_cannot_name_samples_outside_of_its_folder(tmp_path) -> None:
    store = Store(tmp_path / "run")
    np.savez(tmp_path / "secret.npz", ids=np.arange(3))
    with pytest.warns(UserWarning, match="missing"):
        assert store.samples({"samples": "../secret.npz"}) is None


def test_samples_come_back(tmp_path) -> None:
    place = Store(tmp_path).save_samples("ab", {"ids": [0, 1], "ranked": np.ones((2, 5), np.int32)})
    with np.load(tmp_path / place) as file:
        assert file["ids"].tolist() == [0, 1] and file["ranked"].dtype == np.int32
    assert [p.name for p in (tmp_path / "samples").iterdir()] == ["ab.npz"]
