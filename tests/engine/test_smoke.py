"""`--limit`: a smoke test evaluates some samples of each split; its rows are marked and stand apart from whole ones."""

import json

import numpy as np
import pytest
import torch
from detection_tools import drawn
from front_door import call
from runner_tools import run_toy, write_suite

from benchmarks.engine.identity import Identities
from benchmarks.engine.suite import cell_task, load_suite
from benchmarks.engine.sweep import sweep
from benchmarks.report.answers.questions import entries
from benchmarks.report.build import read_report, write_measured, write_report
from benchmarks.store import Store, key_of
from tasks.contract import Batch, View
from tasks.detection.labels.annotations import read_truth
from tasks.detection.scoring.meter import DetectionMeter


def test_only_the_keys_of_rows_differ(tmp_path) -> None:
    cell = load_suite(write_suite(tmp_path), tmp_path).cells[0]
    whole, few, fewer = (Identities("float32", n).of(cell, cell_task(cell, ".")) for n in (None, 5, 4))
    assert (whole.cell, whole.train, whole.views) == (few.cell, few.train, few.views)
    assert not set(whole.rows.values()) & set(few.rows.values()) and not set(few.rows.values()) & set(
        fewer.rows.values()
    )
    for (split, view), key in whole.rows.items():  # as it was before there was a limit
        parts = {"train": whole.train, "split": split, "data": whole.data[split, view], "view": whole.views[view]}
        assert key == key_of(parts)


def test_smoke_rows_are_marked_and_the_whole_run_follows_without_training(monkeypatch, capsys, tmp_path) -> None:
    suite, out = write_suite(tmp_path, backbones=["tiny_backbone:tiny"]), tmp_path / "out"
    asked = (suite, "--data-root", str(tmp_path), "--out", str(out), "--device", "cpu")
    code, said, _ = call(monkeypatch, capsys, "run", *asked, "--limit", "5")
    few = Store(out).rows()
    assert code == 0 and "smoke test: 5 samples" in said
    assert [(r.limit, r.images) for r in few] == [(5, 5)] * 3
    assert Store(out).samples(few[0])["ids"].tolist() == [0, 6, 12, 19, 25]  # spread over the 32
    states = [
        json.loads(call(monkeypatch, capsys, "plan", *asked, "--json", *more)[1])["cells"][0]["state"]
        for more in ([], ["--limit", "5"], ["--limit", "6"])
    ]
    assert states == ["to do", "done", "to do"]
    code, said, _ = call(monkeypatch, capsys, "report", str(out))
    assert code == 0 and "note: a smoke test: no more than 5 samples" in said and "toy limit=5 v1" in said
    assert Store(out / "report").rows()[0].limit == 5  # its table says so, too
    with pytest.raises(ValueError, match="smoke test .* not kept as a measurement"):
        write_measured(read_report([Store(out)]), tmp_path / "measured")
    code, said, _ = call(monkeypatch, capsys, "run", *asked)
    whole = Store(out).rows()[3:]
    assert code == 0 and "step" not in said and [(r.limit, r.images) for r in whole] == [(None, 32)] * 3
    assert {r.train_key for r in whole} == {r.train_key for r in few}
    assert call(monkeypatch, capsys, "run", *asked, "--limit", "0")[0] == 2


def test_smoke_rows_never_meet_whole_ones(monkeypatch, capsys, tmp_path) -> None:
    from runner_tools import Runner, RunOptions

    both = ["tiny_backbone:tiny", {"name": "tiny_backbone:tiny", "options": {"seed": 1}}]
    _, whole = run_toy(tmp_path, backbones=both[:1])
    suite, store = load_suite(write_suite(tmp_path, backbones=both[:1]), tmp_path), Store(tmp_path / "out")
    Runner(suite, store, tmp_path, RunOptions(device="cpu", limit=7), lambda text: None).run()
    assert len(store.rows()) == 2 * len(whole)
    assert [e.row.limit for e in entries([store])] == [None] * 3
    found = read_report([store])
    assert found.notes == ("3 rows of a smoke test (--limit 7) are left out",)
    page = (write_report(found, tmp_path / "page") / "page.html").read_text(encoding="utf-8")
    assert "3 rows of a smoke test" in page
    assert [r.row_key for r in Store(tmp_path / "page").rows()] == [r.row_key for r in whole]
    few = Store(tmp_path / "few")
    few.append([r for r in store.rows() if r.limit])
    code, _, error = call(monkeypatch, capsys, "compare", str(few.folder), str(store.folder))
    assert code == 2 and "limit (7, -)" in error


def test_all_four_tasks_are_evaluated_over_a_part(monkeypatch, capsys, tmp_path) -> None:
    arguments = ("run", "demo", "--limit", "5", "--only", "backbone=vit_nano_g8", "--set", "recipe.steps=0")
    where = ("--set", "eval=[4]", "--out", str(tmp_path / "out"), "--data-root", str(tmp_path / "data"))
    code, said, _ = call(monkeypatch, capsys, *arguments, *where, "--device", "cpu")
    rows = Store(tmp_path / "out").rows()
    assert code == 0 and len(rows) == 4, said
    assert {r.task for r in rows} == {"classification", "segmentation", "retrieval", "detection"}
    for row in rows:
        ids = Store(tmp_path / "out").samples(row)["ids"]
        assert (row.limit, row.images, len(ids)) == (5, 5, 5) and row.metrics[row.metric] is not None
    assert next(r for r in rows if r.task == "retrieval").metrics["chance_i2t_R@1"] > 0.1  # among five pictures


def test_ap_over_some_images_is_that_of_their_labels_alone(tmp_path) -> None:
    data = drawn(tmp_path / "set", images=7)
    places, view = [1, 2, 5], View(4)
    ids = sorted(i["id"] for i in data["images"])
    kept = {ids[p] for p in places}
    alone = {
        **data,
        "images": [i for i in data["images"] if i["id"] in kept],
        "annotations": [a for a in data["annotations"] if a["image_id"] in kept],
    }
    rng = np.random.default_rng(0)
    box = torch.tensor([5, 6, 10, 20]) + torch.tensor(rng.uniform(0, 3, (3, 4, 4)))
    records = {
        "score": torch.tensor(rng.random((3, 4))),
        "category": torch.tensor(rng.integers(0, 3, (3, 4))),
        "box": box,
    }
    found = []
    for truth, own in ((read_truth(data), places), (read_truth(alone), range(3))):
        meter = DetectionMeter(truth, "val")
        if truth.image_ids.shape == (7,):
            meter.narrow("val", places)
        meter.update(records, Batch(torch.tensor(list(own)), torch.zeros(3, 1), None), view, "val")
        found.append(meter.rows()[0])
    assert found[0][1] == found[1][1] and found[0][1]["AP"] > 0
    assert all(np.array_equal(found[0][2][k], found[1][2][k]) for k in ("hit", "miss", "there"))
    assert found[0][2]["ids"].tolist() == places


def test_parts_of_a_split_are_the_same_in_every_batch_size(tmp_path) -> None:
    from flexivit_toy import Toy
    from tiny_backbone import tiny

    task = Toy()
    torch.manual_seed(0)
    model, views = task.model(tiny()), task.views([2, 4])
    one, other = (sweep(task, model, views, "test", batch=b, limit=9).rows for b in (2, 64))
    assert [(v, m) for v, m, _ in one] == [(v, m) for v, m, _ in other] and len(one[0][2]["ids"]) == 9
    assert sweep(task, model, views, "test", limit=99).images == 32
