"""The contract of a task: what is bound, what is marked, what is finite; kept by the engine and not by habit."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest
import runner_tools  # noqa: F401  (makes the plug-in importable)
import torch
from flexivit_toy import Toy
from tiny_backbone import tiny

from benchmarks.engine.finite import Watch, broken_weight
from benchmarks.engine.sweep import sweep
from tasks import Metric, Options, TaskCard, TaskError, View, build_task, option
from tasks.contract.meters import ScoredRecords
from tasks.contract.options import fitting


def test_an_option_without_a_mark_is_an_error_when_the_class_is_made() -> None:
    for default in (1.0, dataclasses.field(default=1.0), dataclasses.MISSING):
        values: dict[str, Any] = {"__annotations__": {"scale": float}}
        if default is not dataclasses.MISSING:
            values["scale"] = default
        with pytest.raises(TypeError, match=r"Bad: declare scale as `scale: float = option\(.*, \"train\"\)`, or"):
            type("Bad", (Options,), values)
    with pytest.raises(TypeError, match='the stage is "train" or "eval"'):
        option(1, "test")
    with pytest.raises(TypeError, match=r"Options: write @dataclass\(frozen=True\) above it"):

        class Forgotten(Toy):
            class Options(Options):
                scale: float = option(1.0, "train")


def test_names_and_types_of_options() -> None:
    knn = {"data": "scenes", "protocol": "knn"}
    with pytest.raises(TaskError, match="no option 'nieghbours'; nearest: neighbours"):
        build_task("classification", options={**knn, "nieghbours": 5})
    for value, told in ((True, "an integer, not True"), (2.5, "an integer, not 2.5"), ("5", "an integer, not '5'"),
                        (5.0, "an integer, not 5.0; write 5")):  # fmt: skip
        with pytest.raises(TaskError, match=f"option neighbours must be {told}"):
            build_task("classification", options={**knn, "neighbours": value})
    task = build_task("classification", options=knn)
    with pytest.raises(TaskError, match="option 'protocol' changes weights, so a view cannot set it; a view has: "):
        task.at(View(8, options={"protocol": "linear"}))
    own = task.at(View(8, options={"neighbours": 5}))
    assert (own.options.neighbours, task.options.neighbours) == (5, 20) and own.card is task.card
    assert build_task("classification", options={**knn, "temperature": 1}).options.temperature == 1


def test_fitting() -> None:
    assert fitting("x", (1, 2), list) == [1, 2] and fitting("x", None, float | None) is None
    assert fitting("x", "anything", Any) == "anything" and fitting("x", 3, float) == 3
    for value, hint in ((None, int), ([1], dict[str, int]), (1, str), (True, float)):
        with pytest.raises(TaskError):
            fitting("x", value, hint)


def test_a_view_is_a_key_whatever_its_options() -> None:
    view = View(8, options={"scales": [1.0, [2.0]], "flip": True})
    assert view == View((8, 8), None, (("flip", True), ("scales", (1.0, (2.0,))))) and len({view}) == 1
    assert View(8).bindings == {} and View(8, "area").bindings == {"resize": "area"}
    assert str(View(8, "area", {"flip": True})) == "8x8 (area, flip=True)" and str(View((4, 6), "pi")) == "4x6"


class Nosy(Toy):
    """Reads its options where the contract forbids it, as told by `where`."""

    @dataclass(frozen=True)
    class Options(Options):
        where: str = option("", "train")
        threshold: float = option(0.5, "eval")
        shade: int = option(0, "eval", data=True)

    def _read(self, where):
        if self.options.where == where:
            assert self.options.threshold >= 0

    def dataset(self, split):
        self._read("dataset" if split == "test" else "train")
        plain = super().dataset(split)
        shade = self.options.shade if split == "test" else 0
        plain.__class__ = type("Shaded", (type(plain),), {
            "__getitem__": lambda s, i: (lambda image, label: (image + shade, label))(*super(type(s), s).__getitem__(i))
        })  # fmt: skip
        return plain

    def predict(self, model, batch, grid, prepared):
        margin = model.head(model.backbone(batch.images, grid).pooled).softmax(1).amax(1)
        return {"sure": margin > self.options.threshold, "margin": margin}

    def meter(self, split):
        own = self.options.threshold
        return ScoredRecords(lambda r: {"top1": float(r["sure"].double().mean()), "threshold": own}, split)


def test_options_of_evaluation_act_on_prediction_meter_and_pictures() -> None:
    task = Nosy()
    torch.manual_seed(0)
    model = task.model(tiny())
    views = [View(4, options=o) for o in ({}, {"threshold": 0.3}, {"shade": 90}, {"shade": 90, "threshold": 0.3})]
    assert [task.data_options(v) for v in views] == [(), (), (("shade", 90),), (("shade", 90),)]
    rows = sweep(task, model, views, "test").rows
    assert [r[0] for r in rows] == views and [r[1]["threshold"] for r in rows] == [0.5, 0.3, 0.5, 0.3]
    margin = [r[2]["margin"] for r in rows]
    assert torch.equal(margin[0], margin[1]) and torch.equal(margin[2], margin[3]) and not margin[0].equal(margin[2])
    for view, (_, metrics, samples) in zip(views, rows, strict=True):  # as the task would be, built with these options
        alone = sweep(Nosy(options=dict(view.options)), model, [View(4)], "test").rows[0]
        assert alone[1] == metrics and torch.equal(alone[2]["margin"], samples["margin"])


@pytest.mark.parametrize("where", ["train", "dataset"])
def test_an_option_that_is_in_no_key_of_what_reads_it_cannot_be_read(where: str) -> None:
    task = Nosy(options={"where": where})
    task.dataset("test")  # the task itself has all its options
    with pytest.raises(TaskError, match="reads the option 'threshold', which it must not depend on; mark it"):
        task.in_training().dataset("train") if where == "train" else task.reading(View(4)).dataset("test")


def test_views_bind_the_resize_of_the_backbone() -> None:
    torch.manual_seed(0)
    task = Toy()
    task.predict = lambda m, b, g, p: {"pooled": m.backbone(b.images, g).pooled, "right": b.targets == 0}
    model = task.model(tiny())
    views = [View(4, r) for r in (None, "pi", "bilinear", "area")]
    own, *seen = (samples["pooled"] for _, _, samples in sweep(task, model, views, "test").rows)
    assert torch.equal(own, seen[0]) and not any(seen[i].equal(seen[j]) for i in range(3) for j in range(i))
    images = torch.stack([task.dataset("test")[i][0] for i in range(32)])
    for view, pooled in zip(views[1:], seen, strict=True):
        with torch.no_grad():
            torch.testing.assert_close(model.backbone(images, view.grid, resize=view.resize).pooled, pooled)


def test_what_is_prepared_with_the_backbone_is_prepared_for_each_binding() -> None:
    torch.manual_seed(0)
    task, calls = Toy(), []

    def prepare(model, split):
        calls.append(split)
        return model.backbone(torch.ones(1, 3, 24, 24), (6, 6)).pooled if len(task.card.splits) else None

    task.prepare = prepare
    task.predict = lambda m, b, g, p: {"prepared": p.expand(len(b), -1), "right": b.targets == 0}
    views = [View(4, "pi"), View(4, "area"), View(6, "area")]
    rows = sweep(task, task.model(tiny()), views, "test", batch=16).rows
    pi, area, other = (samples["prepared"] for _, _, samples in rows)
    assert len(calls) == 2 and not pi.equal(area) and area.equal(other)
    task.prepare = lambda model, split: calls.append(split)
    task.predict = lambda m, b, g, p: {"right": b.targets == 0}
    sweep(task, task.model(tiny()), views, "test", batch=16)
    assert len(calls) == 3  # once for all, as the backbone was not run


def test_a_view_that_is_not_finite_fails_alone() -> None:
    torch.manual_seed(0)
    task = Toy()
    model, views = task.model(tiny()), task.views([2, 3, 4])
    plain = model.backbone.forward

    def at_three(images, grid, **more):
        features = plain(images, grid, **more)
        if tuple(grid) == (3, 3):
            features.pooled[-1, 0] = float("nan")  # argmax makes a number of it that looks like any other
        return features

    expected = sweep(task, model, [views[0], views[2]], "test", batch=16)
    model.backbone.forward = at_three
    found = sweep(task, model, views, "test", batch=16)
    assert [r[0] for r in found.rows] == [views[0], views[2]] and [r[1] for r in found.rows] == [
        r[1] for r in expected.rows
    ]
    assert found.failed == {views[1]: "predictions at 3x3 are not finite: the output of backbone, images of test"}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_one_bad_value_is_noticed_wherever_it_stands(dtype: torch.dtype) -> None:
    with Watch(torch.nn.Identity()) as watch:
        extremes = torch.tensor([torch.finfo(dtype).max, torch.finfo(dtype).min], dtype=dtype).repeat(500)
        assert watch.problem({"n": extremes, "none": extremes[:0]}) is None  # their sum would be infinite
        for place in (0, 499, 999):
            for bad in (float("nan"), float("inf"), float("-inf")):
                record = extremes.clone()
                record[place] = bad
                assert watch.problem({"n": record}) == "record 'n'"


def test_records_and_heads_are_watched_and_masks_are_not() -> None:
    model = Toy().model(tiny())
    with Watch(model) as watch:
        images = torch.zeros(2, 3, 24, 24)
        pooled = model.backbone(images, (2, 2)).pooled
        assert watch.problem({"n": torch.ones(2)}) is None
        assert watch.problem({"score": torch.tensor([1.0, float("inf")])}) == "record 'score'"
        with torch.no_grad():
            model.head.bias[1] = float("-inf")
        model.head(pooled)
        assert watch.problem({}) is None
        with torch.no_grad():
            model.head.bias[1] = float("nan")
        model.head(pooled)
        assert watch.problem({}) == "the output of head" and watch.problem({}) is None
    assert broken_weight(model) == "head.bias" and not model.head._forward_hooks


def test_metrics_have_a_unit_and_a_direction() -> None:
    rmse, top1 = Metric("rmse", "m", higher_is_better=False), Metric("top1")
    assert (rmse.show(4.57), rmse.show(4.57, unit=False), rmse.label) == ("4.57 m", "4.57", "rmse in m")
    assert (top1.show(0.457), top1.show(None), top1.label) == ("45.7 %", "-", "top1 in %")
    assert (top1.margin, rmse.margin, top1.scale, rmse.scale) == (0.01, None, 100, 1)
    assert top1.show_difference(0.01) == "+1.0 point" and top1.show_difference(-0.003) == "-0.3 points"
    assert (
        rmse.show_difference(0.5) == "+0.50 m"
        and rmse.best({"a": 1.0, "b": 2.0}) == "a"
        and top1.best({1: 0.0, 2: 1.0}) == 2
    )
    card = TaskCard("depth", "v1", (rmse, "delta1"))
    assert card.metric is rmse and card.metrics[1] == Metric("delta1")
    assert TaskCard("toy", "v1", "top1").metric == top1
    with pytest.raises(TypeError, match="at least one metric"):
        TaskCard("toy", "v1", ())


def test_the_metric_of_a_row() -> None:
    old = {"metric": "AP", "metrics": {"AP": 0.1, "chance_AP": 0.02}, "higher_is_better": True}
    assert Metric.of(old) == Metric("AP", chance=0.02)
    rmse = Metric("rmse", "m", higher_is_better=False, margin=0.1)
    new = {"metric": "rmse", "measure": dataclasses.asdict(rmse) | {"later": 1}, "metrics": {"rmse": 3.0}}
    assert Metric.of(new) == rmse and Metric.of({"metrics": {"x": 1.0}}).name == "x"
