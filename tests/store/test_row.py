"""A row is typed, and rows of every older format are rows of today."""

import dataclasses
import json
import random
from pathlib import Path

import pytest

from benchmarks.report.build import read_report, write_report
from benchmarks.report.page.document import build_page
from benchmarks.report.tables import as_csv
from benchmarks.store import Row, Store
from benchmarks.store.row import ROW_FORMAT
from benchmarks.store.upgrades import read_row, rows_of_csv
from tasks.contract import Recipe

OLD = sorted((Path(__file__).parent / "old_rows").glob("*.jsonl"))
MEASURED = sorted((Path(__file__).parents[2] / "results" / "measured").glob("*/rows.csv"))
GOOD = {
    "task": "toy", "backbone": "tiny", "split": "test", "eval_grid": 4, "row_key": "ab", "metrics": {"top1": 0.5},
}  # fmt: skip


@pytest.mark.parametrize("path", OLD, ids=lambda p: p.stem)
def test_rows_that_older_versions_wrote_are_read(path, tmp_path) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [read_row(line) for line in lines]
    assert [r.status for r in rows] == ["ok", "ok", "failed"]
    for row, line in zip(rows, lines, strict=True):
        assert row.row_format == ROW_FORMAT and not row.more
        moved = ("row_format", "recipe", "data_fingerprint")
        kept = {k: v for k, v in row.to_json().items() if k in line and k not in moved}
        assert kept == {k: v for k, v in line.items() if k not in moved and (v is not None or k in row)}
        assert list(row.data_identity.values()) == [f for f in (line.get("data_fingerprint"),) if f]
        assert {k: row.recipe[k] for k in line["recipe"]} == line["recipe"]
        assert row.recipe.keys() == dataclasses.asdict(Recipe()).keys()
    store = Store(tmp_path)
    store.path.parent.mkdir(exist_ok=True)
    store.path.write_text(path.read_text())
    assert store.rows() == rows and len(store.done()) == 2
    text = read_report([store]).markdown()
    assert "| tiny_backbone:tiny | 4 | 25.0 |" in text and "these weights are torn" in text


def test_rows_without_a_format_are_read() -> None:
    line = {**GOOD, "key": "old"}
    del line["row_key"]
    row = read_row(line)
    assert (row.row_key, row.status, row.row_format) == ("old", "ok", ROW_FORMAT)
    keyless = {k: v for k, v in line.items() if k != "key"}
    keys = {read_row({**keyless, "seed": seed}).row_key for seed in (0, 1)}
    assert len(keys) == 2 and "" not in keys
    assert read_row({"task": "toy", "backbone": "tiny", "error": "x"}).status == "failed"


def test_the_measured_tables_are_made_again_from_their_rows() -> None:
    assert MEASURED
    for path in MEASURED:
        rows = rows_of_csv(path)
        assert as_csv(rows) == path.read_text(), path
        assert Store(path.parent).rows() == rows and read_report([Store(path.parent)]).markdown().startswith("### ")


@pytest.mark.parametrize("change, why", [
    ({"task": None}, "task must be a text, not None"),
    ({"task": 3}, "task must be a text, not 3"),
    ({"metrics": [0.5]}, "metrics must be a mapping"),
    ({"metrics": {"top1": "0.5"}}, r"metrics.top1 must be a number or null, not '0.5'"),
    ({"metrics": {"top1": True}}, r"metrics.top1 must be a number or null, not True"),
    ({"metrics": {"top1": float("nan")}}, "metrics.top1 is nan"),
    ({"metrics": {}}, "a successful row needs metrics"),
    ({"eval_grid": [8, 8]}, "eval_grid must be a grid or null"),
    ({"eval_grid": None, "row_key": ""}, "a successful row needs row_key and eval_grid"),
    ({"options": "data"}, "options must be a mapping"),
    ({"seed": 0.5}, "seed must be a whole number or null"),
    ({"seed": True}, "seed must be a whole number or null"),
    ({"status": "fine"}, "status must be ok or failed, not 'fine'"),
    ({"finished": 5}, "finished must be a text or null"),
    ({"notes": "one"}, "notes must be a list"),
    ({"metrics": {"top1": 10**400}}, r"metrics.top1 is 1000+\.\.\.: no number of a row is beyond 1e\+100"),
    ({"cost": {"images_per_second": 1e308}}, "cost.images_per_second is 1e.308: no number"),
    ({"measure": {"digits": -1}}, "measure.digits must be from 0 to 15, not -1"),
    ({"identical_to": [{}]}, r"identical_to must be a list of texts, and holds \{\}"),
    ({"measure": {"scale": "100"}}, "measure.scale must be a number, not '100'"),
    ({"measure": {"chance": [0.1]}}, r"measure.chance must be a number or null, not \[0.1\]"),
    ({"measure": {"digits": 1.5}}, "measure.digits must be a whole number, not 1.5"),
    ({"cost": {"macs": "1e9"}}, "cost.macs must be a number or null, not '1e9'"),
    ({"cost": {"macs_per_second": True}}, "cost.macs_per_second must be a number or null, not True"),
    ({"cost": {"grids": 8}}, "cost.grids must be a list or null"),
    ({"training": {"losses": 0.5}}, "training.losses must be a list or null"),
    ({"env": {"versions": ["torch"]}}, "env.versions must be a mapping or null"),
    ({"env": {"command": ["run"]}}, "env.command must be a text or null"),
    ({"row_format": 99}, "row_format 99 is not known"),
    ({"row_format": "1"}, "row_format '1' is not known"),
])  # fmt: skip
def test_what_is_no_row_is_named(tmp_path, change, why) -> None:
    read_row({**GOOD, "row_format": ROW_FORMAT})  # what fitted once is not looked at closely again
    for _ in range(2):
        with pytest.raises(ValueError, match=why):
            read_row({**GOOD, "row_format": ROW_FORMAT, **change})
    store = Store(tmp_path)
    store.append([GOOD])
    with open(store.path, "a") as file:
        file.write(json.dumps({**GOOD, "row_format": ROW_FORMAT, **change}) + "\n")
    store.append([{**GOOD, "row_key": "cd"}])
    with pytest.warns(UserWarning, match="rows.jsonl:2: not a row, passed over"):
        assert [r.row_key for r in store.rows()] == ["ab", "cd"]
    assert set(store.done()) == {"ab", "cd"} and len(store.faults) == 1


RUN = Path(__file__).parents[2] / "results" / "measured" / "mini_few_shot" / "run"
ODD: list[object] = ["x", [1], {"a": 1}, 10**400, True, None, -1, "\ud800", 1e308, [], {}, ["\ud800", {}], 0, 0.5]


def places(value: object, above: tuple = ()):
    """Every place inside a line, for a value to be put there."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*above, key)
        yield from places(inner, (*above, key))


@pytest.mark.slow  # a report for each
def test_a_row_with_any_value_anywhere_stops_no_report(tmp_path) -> None:
    lines = [json.loads(line) for line in (RUN / "rows.jsonl").read_text().splitlines()][:12]
    (tmp_path / "samples").symlink_to(RUN / "samples")
    tried = [(place, odd) for place in places(lines[0]) for odd in ODD]
    for place, odd in random.Random(0).sample(tried, 250):
        line = json.loads(json.dumps(lines[0]))
        inner = line
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = odd
        (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in [line, *lines[1:]]))
        store = Store(tmp_path)
        report = read_report([store])
        told = place, odd
        assert report.markdown().encode(), told
        assert build_page(report.stores, report.answers, report.notes).encode(), told
        assert len(store.entries()) in (11, 12), told


def test_half_a_pair_of_utf16_in_a_row_stops_no_report(tmp_path) -> None:
    """A command whose file name is not UTF-8 is written so."""
    store = Store(tmp_path)
    store.append(
        [{**GOOD, "label": "caf\udce9 \U0001f600", "env": {"command": "run \udce9.yaml", "versions": {"\ud800": "1"}}}]
    )
    (row,) = store.rows()
    assert (row.label, dict(row.env)) == ("caf? \U0001f600", {"command": "run ?.yaml", "versions": {"?": "1"}})
    assert write_report(read_report([store]), tmp_path / "report")
    assert [r.label for r in map(store.row, store.entries())] == ["caf? \U0001f600"]


def test_a_row_is_its_line() -> None:
    row = Row.from_json({**GOOD, "depth": {"unit": "m"}})
    assert row["task"] == row.task == "toy" and row["depth"] == {"unit": "m"} and row.get("error", "-") == "-"
    assert "error" not in row and "depth" in row and len(row) == len(list(row)) == len(row.to_json())
    assert Row.from_json(json.loads(json.dumps(row.to_json()))) == row
    assert row.changed(seed=3).seed == 3 and row.seed is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.seed = 3
    with pytest.raises(KeyError):
        row["nothing"]
