"""Measured speeds: kept whole, the nearest taken, and a plan that sums by them."""

import dataclasses
import json

import pytest
import torch
from front_door import call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from backbones import backbone_spec
from benchmarks.cost import rates
from benchmarks.cost.macs import estimate
from benchmarks.cost.rates import SPEED, Rate, assumed_speed, device_key, keep_rates, nearest, read_rates
from benchmarks.engine.suite import Cell
from tasks import build_task
from tasks.contract import TrainingWork, View
from tasks.retrieval.lit import text_config, text_tower
from tasks.text.sizes import SMALL, TOKENS, text_macs

NANO = backbone_spec("flexivit_nano").shape
ONE = Rate("box", "flexivit_nano", 128, 6, 8, 8, "float32", 4e9, 2e9, "today")


def cell(train: str | None = "random:4,8") -> Cell:
    return Cell("s", "t", {}, {}, "flexivit_nano", {}, train, (View((4, 4)), View((8, 8))), ("test",))


def test_a_later_measurement_takes_the_place_of_its_like(tmp_path) -> None:
    path = tmp_path / "new" / "rates.json"
    assert read_rates(path) == []
    keep_rates(path, [ONE, dataclasses.replace(ONE, grid=4)])
    keep_rates(path, [dataclasses.replace(ONE, forward=5e9)])
    assert {r.grid: r.forward for r in read_rates(path)} == {4: 4e9, 8: 5e9}
    path.write_text(path.read_text()[:-9])
    with pytest.raises(ValueError, match="no table of `bench --rates`"):
        read_rates(path)
    path.write_text('[{"speed": 3}]')
    with pytest.raises(ValueError, match="measure anew"):
        read_rates(path)


def test_the_table_that_is_shipped_can_be_read() -> None:
    table = read_rates()
    assert table and all(r.forward > 0 and r.made for r in table)


def test_the_nearest_is_of_this_device_then_of_width_then_of_tokens() -> None:
    wide, coarse, other = (dataclasses.replace(ONE, **k) for k in ({"width": 768}, {"grid": 4}, {"device": "else"}))
    table = [wide, coarse, other, ONE]
    assert nearest(table, "box", NANO, (10, 10)) is ONE and nearest(table, "box", NANO, (5, 5)) is coarse
    assert nearest(table, "box", backbone_spec("flexivit_l_i1k").shape, (4, 4)) is wide
    assert nearest(table, "third", NANO, (4, 4)) is None


def test_hours_are_sums_over_grids_by_their_own_speeds() -> None:
    four = dataclasses.replace(ONE, grid=4, forward=1e9, training=5e8)
    asked = {"steps": 10, "batch": 6, "images": 100, "side": 120}
    found = estimate(cell(), **asked, device="box", own=None, rates=[ONE, four])
    for device, speed in (("cuda:1", SPEED["cuda"]), ("cpu", SPEED["cpu"])):
        assert assumed_speed(device, []) == speed
    small, large = (estimate(c, 0, 1, 1, 120, "cpu", None, [])["macs"] for c in (
        dataclasses.replace(cell(None), views=(View((4, 4)),)), dataclasses.replace(cell(None), views=(View((8, 8)),))
    ))  # fmt: skip
    seconds = 3 * 30 * (small / 5e8 + large / 2e9) + 100 * (small / 1e9 + large / 4e9)
    assert found == {"macs": 190 * (small + large), "hours": round(seconds / 3600, 4), "rate": "measured"}
    assert estimate(cell(), **asked, device="cuda", own=None, rates=[ONE])["rate"] == "assumed"
    assert estimate(cell(), **asked, device="cuda", own=None, rates=[])["hours"] == pytest.approx(
        found["macs"] / SPEED["cuda"] / 3600, abs=1e-4
    )
    assert estimate(cell(), **asked, device="box", own=1e9, rates=[ONE])["rate"] == "rows"
    untimed = dataclasses.replace(ONE, training=None)  # serves what trains nothing
    assert estimate(cell(None), **asked, device="box", own=None, rates=[untimed])["rate"] == "measured"
    assert estimate(cell(), **asked, device="box", own=None, rates=[untimed])["rate"] == "assumed"


def test_a_locked_tower_is_counted_as_it_is_trained() -> None:
    """Looked through at each step, or once for each picture and grid; a text tower learns at each step."""
    asked = {"steps": 10, "batch": 6, "images": 0, "side": 120, "device": "cpu", "own": None, "rates": []}

    def counted(**work: int) -> int:
        return estimate(cell(), **asked, work=TrainingWork(**work))["macs"]

    whole = estimate(cell(), **asked)["macs"]  # 60 pictures, half of them at each of two grids
    assert counted(passes=1) * 3 == counted() == whole
    assert counted(passes=0, kept=30) * 3 == whole and counted(passes=0, text=7) == 3 * 60 * 7


def test_plans_know_which_towers_are_locked(tmp_path) -> None:
    def work(task: str, options: dict, **recipe: object) -> TrainingWork:
        found = build_task(task, tmp_path, options)
        found.recipe = found.recipe.replaced(recipe)
        return found.training_work()

    assert work("classification", {"data": "scenes"}) == TrainingWork(passes=3)
    assert work("classification", {"data": "scenes"}, lr_groups={"backbone": 0.0}) == TrainingWork(passes=1)
    lit = {"data": "scenes", "preset": "nano"}
    kept = build_task("retrieval", tmp_path, lit).card.splits["train"]
    assert kept and work("retrieval", lit) == TrainingWork(0, kept, text_macs("nano"))
    assert work("retrieval", {"data": "scenes", "preset": "siglip_lit_coco"}) == TrainingWork(1, 0, 0)
    assert work("retrieval", {**lit, "locked": False}) == TrainingWork(3, 0, text_macs("nano"))
    assert text_macs("ViT-B-16") == 0


@pytest.mark.parametrize("name", ["tiny", "nano", "small"])
def test_multiply_adds_of_a_text_tower_are_those_that_torch_counts(name) -> None:
    config = text_config(name)
    tower, width = text_tower(name, SMALL[name]["embed_dim"])
    tokens = torch.full((1, config["context_length"]), 7)
    # in training mode, and with attention by products, nothing is fused out of the counter's sight
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as seen:
        tower.train()(tokens)
    assert TOKENS[name] == config["context_length"] and SMALL[name]["width"] == config["width"]
    assert text_macs(name) == pytest.approx(seen.get_total_flops() / 2, rel=0.02)


def test_devices_have_names(monkeypatch) -> None:
    device_key.cache_clear()
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert device_key("cpu").endswith(", 3 threads") and device_key("NVIDIA H100") == "NVIDIA H100"
    monkeypatch.setattr(rates, "_gpu", lambda: "NVIDIA H100")
    assert device_key("cuda") == device_key("cuda:1") == "NVIDIA H100"
    device_key.cache_clear()


def test_bench_writes_what_plan_reads(monkeypatch, capsys, tmp_path) -> None:
    path = tmp_path / "rates.json"
    more = ("--grids", "4", "--batch", "2", "--turns", "1", "--no-compile", "--training", "--rates", str(path))
    code, _, err = call(monkeypatch, capsys, "bench", "flexivit_nano", *more)
    assert code == 0, err
    (rate,) = read_rates(path)
    assert rate.training > 0 and (rate.width, rate.depth, rate.grid) == (128, 6, 4) and "revision" in rate.made
    plan = ("plan", "demo", "--data-root", str(tmp_path), "--out", str(tmp_path / "out"), "--json")
    code, _, err = call(monkeypatch, capsys, *plan, "--rates", str(path), "--device", "H900")
    assert code == 2 and "no device 'H900' to plan for; there are: cpu, cuda, " in err and err.count("\n") == 1
    for extra, source in (((), "measured"), (("--device", "cuda:0"), "assumed")):
        code, text, err = call(monkeypatch, capsys, *plan, "--rates", str(path), *extra)
        assert code == 0 and {c["rate"] for c in json.loads(text)["cells"]} == {source}, err
