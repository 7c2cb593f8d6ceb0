"""Pure parts of the script that times two revisions side by side."""

import json

import pytest

from benchmarks.engine.suite import load_suite
from benchmarks.speed.revision.__main__ import TASKS, line_of, suite_of, times_of
from benchmarks.speed.revision.trees import checked_out, read_rows


def test_the_suite_is_a_cell_a_task(tmp_path) -> None:
    path = tmp_path / "revision.yaml"
    path.write_text(suite_of("flexivit_nano", 7, [5, 8]))
    cells = load_suite(str(path), tmp_path).cells
    assert [cell.task for cell in cells] == list(TASKS)
    assert all(len(cell.views) == 2 and dict(cell.recipe)["steps"] == 7 for cell in cells)


def test_seconds_of_rows_and_ratios_of_turns() -> None:
    training = {"steps": 20, "seconds": 4.0}
    rows = [{"training": training, "cost": {"images_per_second": rate}} for rate in (10.0, 5.0)]
    found = times_of(rows)
    assert found["step"] == pytest.approx(0.2) and found["sweep"] == pytest.approx(0.1 + 0.2)
    # the median of the turns' ratios, which the machine's drift leaves alone, not the ratio of the medians
    line = line_of("a step", [1.0, 2.0, 40.0], [1.1, 1.8, 40.0])
    assert line == "| a step | 2 s | 1.8 s | 1.000 | 0.900 | 1.100 |"


def test_rows_that_failed_are_no_measurement(tmp_path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"status": "failed", "error": "out of memory"}) + "\n")
    with pytest.raises(RuntimeError, match="out of memory"):
        read_rows(tmp_path)
    (tmp_path / "rows.jsonl").write_text("")
    with pytest.raises(RuntimeError, match="no rows"):
        read_rows(tmp_path)


def test_a_revision_that_there_is_not_is_named(tmp_path) -> None:
    with pytest.raises(ValueError, match="no-such-revision"), checked_out("no-such-revision", tmp_path):
        pass
