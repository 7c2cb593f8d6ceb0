"""The teacher is asked once about each picture, however the views of a sweep group the pictures."""

from collections.abc import Callable

import pytest
import torch
from data_tools import small_pictures

from backbones import build_backbone
from benchmarks.engine.sweep import sweep
from tasks import build_task
from tasks.upstream.answers import Answers


def test_a_teacher_sees_each_picture_once_and_the_rows_stay(tmp_path) -> None:
    small_pictures(tmp_path, count=25)
    options = {"preset": "i1k_deit3_distill", "data": "small/set", "teacher": "vit_nano_g8", "metric": "agreement"}
    task = build_task("upstream", tmp_path, options)
    model = task.model(build_backbone("flexivit_nano_scratch", patch=8))
    asked: list[int] = []
    plain = model.answers

    def counted(pictures: torch.Tensor) -> torch.Tensor:
        asked.append(len(pictures))
        return plain(pictures)

    model.answers = counted
    views = task.views([4, 8, 10])
    alone = {v: sweep(task, model, [v], "test", batch=10).rows[0] for v in views}
    for budget in (None, 30 * 16, 20 * 64):  # each batch alone; joined at 4; joined at 4 and 8
        asked.clear()
        together = sweep(task, model, views, "test", batch=10, token_budget=budget)
        assert sum(asked) == together.images == 25, budget
        for view, metrics, samples in together.rows:
            assert metrics == pytest.approx(alone[view][1], rel=1e-4)
            assert torch.equal(samples["answer"], alone[view][2]["answer"])


def numbered(asked: list[int]) -> Callable[[torch.Tensor], torch.Tensor]:
    """An answer that names its picture."""

    def ask(pictures: torch.Tensor) -> torch.Tensor:
        asked.extend(pictures.flatten().tolist())
        return pictures.flatten(1).double()

    return ask


def test_only_what_is_new_is_asked_and_the_oldest_are_forgotten() -> None:
    answers, asked = Answers(kept=4), list[int]()

    def of(*ids: int) -> list[float]:
        return answers(list(ids), torch.tensor(ids).view(-1, 1), numbered(asked)).flatten().tolist()

    assert of(1, 2) == [1, 2] and of(3, 2, 4) == [3, 2, 4] and asked == [1, 2, 3, 4]
    assert of(4, 1) == [4, 1] and asked == [1, 2, 3, 4]
    assert of(5) == [5] and of(2, 1) == [2, 1] and asked == [1, 2, 3, 4, 5, 1]
    assert of(*range(10, 20)) == list(range(10, 20)), "a batch of more than are kept"
    assert answers([7], torch.tensor([[7]]), numbered(asked)).dtype == torch.float32
