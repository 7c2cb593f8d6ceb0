"""Two runs digit by digit: the proof that a change moved no number."""

from runner_tools import run_toy

from benchmarks.experiments.same_rows import differences, main
from benchmarks.report.tables import as_csv
from benchmarks.store import Store


def test_the_same_cells_are_equal_and_a_moved_digit_is_named(tmp_path, capsys) -> None:
    _, rows = run_toy(tmp_path, "before")
    run_toy(tmp_path, "after")
    before, after, moved = (str(tmp_path / name) for name in ("before", "after", "moved"))
    assert main([before, after]) == 0 and "3 rows equal in every digit, 0 not" in capsys.readouterr().out
    least = rows[0].changed(metrics={"top1": rows[0].metrics["top1"] + 1e-16 + 2**-53}, row_key="another")
    losses = {**rows[1].training, "losses": [*rows[1].training["losses"][:3], 9.0]}
    Store(moved).append([least, rows[1].changed(training=losses)])
    assert main([before, moved]) == 1
    said = capsys.readouterr().out
    assert "toy test tiny_backbone:tiny 4 2 pi 0: top1 " in said and "losses, from point 3" in said
    assert "only before: toy test tiny_backbone:tiny 4 6" in said and "0 rows equal in every digit, 3 not" in said
    assert differences(rows[0], rows[0].changed(samples_hash="0")) == ["per-sample values"]


def test_the_table_of_a_report_is_enough_and_no_rows_are_told(tmp_path, capsys) -> None:
    _, rows = run_toy(tmp_path, "run")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "rows.csv").write_text(as_csv(rows), encoding="utf-8")
    assert main([str(tmp_path / "kept"), str(tmp_path / "run")]) == 0
    assert main([str(tmp_path / "nowhere"), str(tmp_path / "run")]) == 2 and "no rows in" in capsys.readouterr().err
