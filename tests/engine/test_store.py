"""Rows are whole or absent, whatever kills their writer."""

import errno
import json
import multiprocessing
import os

import numpy as np
import pytest

from benchmarks.store import Store, key_of


def row(key: str, status: str = "ok", **more: object) -> dict:
    return {"row_key": key, "status": status, "metrics": {"top1": 0.5}, **more}


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
        assert [r["row_key"] for r in store.rows()] == ["a", "b"]
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
    assert set(store.done()) == {"b"} and store.done()["b"]["note"] == 2


def test_rows_of_other_versions_are_read(tmp_path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"key": "old", "metrics": {"top1": 1.0}}\nnonsense\n{"error": "x"}\n')
    with pytest.warns(UserWarning, match="rows.jsonl:2"):
        found = Store(tmp_path).rows()
    assert [r["status"] for r in found] == ["ok", "failed"] and found[0]["row_key"] == "old"
    assert found[0]["split"] is None and found[0]["row_format"] == 0


def test_values_that_are_no_numbers_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError):
        Store(tmp_path).append([row("a", value=float("nan"))])
    assert Store(tmp_path).rows() == []


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

    monkeypatch.setattr("benchmarks.store.store.fcntl.flock", flock)
    with pytest.raises(ValueError, match="has no flock .No locks available.; choose another --out"):
        Store(tmp_path).append([row("a")])
    with pytest.raises(ValueError, match="has no flock"), Store(tmp_path).claim("cell"):
        pass


def test_samples_come_back(tmp_path) -> None:
    place = Store(tmp_path).save_samples("ab", {"ids": [0, 1], "ranked": np.ones((2, 5), np.int32)})
    with np.load(tmp_path / place) as file:
        assert file["ids"].tolist() == [0, 1] and file["ranked"].dtype == np.int32
    assert [p.name for p in (tmp_path / "samples").iterdir()] == ["ab.npz"]
