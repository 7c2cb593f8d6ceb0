"""Latency: of the row's own model, one call at a time, once for each choice, and never in a key."""

import yaml
from typer.testing import CliRunner

import run_all
from benchmarks.cost import timing
from benchmarks.cost.latency import read_latencies
from benchmarks.store import Store
from tasks.data.scenes import scenes_folder


def test_the_verb_measures_each_choice_once(tmp_path) -> None:
    scenes_folder(tmp_path)
    suite = {
        "name": "seen", "backbones": ["flexivit_nano"], "train": [4], "eval": [4, 6], "seeds": [0, 1],
        "tasks": [{"task": "classification", "options": {"data": "scenes"}, "recipe": {"steps": 1, "batch": 2}}],
    }  # fmt: skip
    (tmp_path / "seen.yaml").write_text(yaml.safe_dump(suite))
    out = ["--data-root", str(tmp_path)]

    def called(*arguments: str) -> str:
        done = CliRunner().invoke(run_all.app, [*arguments, *out], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    run = ["run", str(tmp_path / "seen.yaml"), "--out", str(tmp_path / "out"), "--device", "cpu", "--limit", "6"]
    called(*run)
    store = Store(tmp_path / "out")
    before = store.path.read_bytes()
    quick = ["latency", str(tmp_path / "out"), "--calls", "4", "--pause", "0", "--device", "cpu"]
    assert "2 latencies measured" in called(*quick, "--batch", "1")
    assert "2 latencies measured" in called(*quick, "--batch", "1,3")  # those of batch 1 are there
    assert "all were there already" in called(*quick, "--batch", "1,3")
    called(*run)
    assert store.path.read_bytes() == before  # no row is made anew
    found = read_latencies([store])
    assert sorted({one.batch for own in found.values() for one in own.values()}) == [1, 3]
    rows = {r.row_key: r for r in store.rows()}
    for own in found.values():
        assert {(rows[key].seed, str(rows[key].eval_grid)) for key in own} == {(0, "4"), (0, "6")}
        assert all(0 < one.low <= one.ms <= one.high and one.precision == "float32" for one in own.values())


def test_calls_are_warm_and_apart_and_a_slow_device_is_told(monkeypatch) -> None:
    clock, made = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(timing.time, "sleep", lambda seconds: made.append(seconds))

    def call() -> None:
        made.append("call")
        clock[0] += 0.001 * (1 if len(made) < 40 else 2)

    taken, slowed = timing.time_calls(call, "cpu", 30, 0.2)
    assert made[: timing.WARM] == ["call"] * timing.WARM and made[timing.WARM :] == [0.2, "call"] * 30
    assert len(taken) == 30 and round(taken[0], 6) == 1.0 and "2.00 times the first" in slowed
