"""What is the default on a GPU, tried where there is none: compiled steps, and evaluation with bfloat16 weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import runner_tools
import torch
from accelerate import Accelerator
from flexivit_toy import Toy
from tiny_backbone import Plain, tiny
from torch import nn

from backbones import build_backbone
from backbones.grids import parse_schedule
from benchmarks.engine.bfloat16 import bfloat16_weights
from benchmarks.engine.identity import Identities
from benchmarks.engine.plan import plan
from benchmarks.engine.runner import Runner
from benchmarks.engine.running.options import RunOptions, evaluation_weights
from benchmarks.engine.suite import cell_task, load_suite
from benchmarks.engine.sweep import sweep
from benchmarks.engine.training.compiled import WORTH_STEPS, CompiledStep, compiles, from_compiler
from benchmarks.engine.training.loop import _within_memory, finetune
from benchmarks.engine.training.trainer import _notes
from benchmarks.experiments.bfloat16_evaluation import Classified, answers, compared
from benchmarks.store import Store
from benchmarks.studies.tiny_imagenet import load_tiny_imagenet
from tasks.contract import Batch, Recipe, TaskError
from tasks.contract.frozen import Frozen

CPU, GPU = torch.device("cpu"), torch.device("cuda", 1)


def test_long_trainings_are_compiled_on_a_gpu() -> None:
    long, short = Recipe(steps=3 * WORTH_STEPS), Recipe(steps=3 * WORTH_STEPS - 1)
    assert compiles(GPU, None, long, 3) and not compiles(GPU, None, long, 4) and not compiles(GPU, None, short, 3)
    assert not compiles(CPU, None, long, 1) and compiles(CPU, True, short, 9) and not compiles(GPU, False, long, 1)
    assert not compiles(GPU, None, Recipe(steps=3 * WORTH_STEPS, clip_per_example=True), 1)


def test_weights_of_evaluation_by_device() -> None:
    assert evaluation_weights("cuda:1", "bf16") == "bf16"
    assert {evaluation_weights(*given) for given in (("cuda", "no"), ("cpu", "bf16"), ("cpu", "no"))} == {"float32"}
    assert (
        evaluation_weights("cuda", "bf16", "float32") == "float32" and evaluation_weights("cpu", "no", "bf16") == "bf16"
    )
    with pytest.raises(TaskError, match="no weights 'fp8' in evaluation; there are: float32, bf16"):
        evaluation_weights("cuda", "bf16", "fp8")


def test_only_bfloat16_weights_are_in_keys_and_only_in_those_of_rows(tmp_path) -> None:
    suite = load_suite(runner_tools.write_suite(tmp_path), tmp_path)
    cell = suite.cells[0]
    task = cell_task(cell, tmp_path)
    usual, same, rounded = (Identities("bf16", None, w).of(cell, task) for w in ("float32", "float32", "bf16"))
    assert usual == same and usual == Identities("bf16").of(cell, task)
    assert rounded.train == usual.train and not set(rounded.rows.values()) & set(usual.rows.values())


def test_a_run_says_what_it_did_and_plan_counts_the_same_rows(tmp_path) -> None:
    suite, store = load_suite(runner_tools.write_suite(tmp_path), tmp_path), Store(tmp_path / "out")
    summary = Runner(suite, store, tmp_path, RunOptions(device="cpu", eval_weights="bf16"), [].append).run()
    assert summary.status == 0, summary.lines()
    rows = store.rows()
    assert {r.eval_weights for r in rows} == {"bf16"} and {r.precision for r in rows} == {"float32"}
    assert {p.state for p in plan(suite, store, tmp_path, eval_weights="bf16")} == {"done"}
    assert {p.state for p in plan(suite, store, tmp_path)} == {"to do"}
    # the same trainings, looked at with the weights as they are: rows of their own, which say nothing of it
    _, more = runner_tools.run_toy(tmp_path)
    own = more[len(rows) :]
    assert len(own) == len(rows) and "eval_weights" not in own[0] and own[0].train_key == rows[0].train_key


def test_weights_come_back_to_the_bit_and_the_stream_is_bfloat16() -> None:
    model = Toy().model(tiny())
    before = {n: t.clone() for n, t in model.state_dict().items()}
    seen: list[torch.dtype] = []
    block = model.backbone.trunk.blocks[0]
    block.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    images = torch.randint(0, 256, (2, 3, 24, 24), dtype=torch.uint8)
    with torch.no_grad(), bfloat16_weights(model) as kept:
        assert not kept and block.mlp.fc1.weight.dtype == torch.bfloat16
        assert model.backbone.base_kernel.dtype == torch.float32  # what is resized is not rounded
        found = model.backbone(images, (4, 4))
        assert found.pooled.dtype == torch.float32 and set(seen) == {torch.bfloat16}
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.allclose(model.backbone(images, (4, 4)).pooled, found.pooled, atol=0.1)
    assert all(torch.equal(t, before[n]) and t.dtype == before[n].dtype for n, t in model.state_dict().items())
    assert "encode" not in vars(model.backbone)
    with pytest.raises(KeyError), bfloat16_weights(model):
        raise KeyError
    assert block.mlp.fc1.weight.dtype == torch.float32


def test_locked_towers_too_and_what_it_does_not_suit_is_said() -> None:
    model = nn.Module()
    model.backbone = Frozen(tiny())
    with bfloat16_weights(model) as kept:
        assert not kept and model.backbone.trunk.norm.weight.dtype == torch.bfloat16
    assert model.backbone.trunk.norm.weight.dtype == torch.float32
    model.backbone = Plain()
    with bfloat16_weights(model) as kept:
        assert kept == ["evaluated with the weights as they are, not in bfloat16: Plain has no blocks"]

    def narrow(module: Any, given: tuple[Any, ...]) -> None:
        if given[0].dtype == torch.bfloat16:
            raise RuntimeError("expected Float but found BFloat16")

    task = Toy()
    model = task.model(tiny())
    model.backbone.trunk.blocks[0].register_forward_pre_hook(narrow)
    found = sweep(task, model, task.views([4]), "test", bfloat16=True)
    why = "RuntimeError: expected Float but found BFloat16"
    assert found.notes == [f"evaluated with the weights as they are, not in bfloat16: {why}"] and not found.bfloat16
    assert found.rows[0][1] == sweep(task, model, task.views([4]), "test").rows[0][1]


FOLDER = Path(os.environ.get("FLEXIVIT_DATA", "/nowhere")) / "pretrain"
REAL = any(FOLDER.glob("tinyimagenet100_val*"))


def pictures(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tiny ImageNet's where they are; else drawn, whose labels are the backbone's own answers."""
    if REAL:
        found = load_tiny_imagenet(FOLDER, "val")
        chosen = torch.arange(count) * len(found.images) // count
        return found.images[chosen], found.labels[chosen]
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 255
    images = nn.functional.interpolate(coarse, size=64, mode="bicubic").clamp(0, 255).byte()
    return images, answers(Classified(build_backbone("flexivit_nano").eval()), images, 5).argmax(1)


def test_bfloat16_weights_leave_metrics_as_they_are() -> None:
    """Of some hundred pictures one is more than a tenth of a point of top-1: how sure the model is tells finer."""
    images, labels = pictures(200)
    model = Classified(build_backbone("flexivit_nano").eval())
    plain = answers(model, images, 4)
    with bfloat16_weights(model) as kept:
        assert not kept
        rounded = answers(model, images, 4)
    sure, less = (found.softmax(1).gather(1, labels[:, None]).double().mean() for found in (plain, rounded))
    # of drawn pictures, which no training has seen, bfloat16 is surer by 0.0009 however many there are
    assert abs(sure - less) <= (0.001 if REAL else 0.002)
    assert (plain.argmax(1) != rounded.argmax(1)).double().mean() <= 0.02
    assert 0 < (plain - rounded).norm() / plain.norm() < 0.02


@pytest.mark.slow
def test_top1_is_equal_to_a_tenth_of_a_point() -> None:
    images, labels = pictures(2500)
    plain, rounded, others = compared(Classified(build_backbone("flexivit_nano").eval()), images, labels, 4)
    assert abs(plain - rounded) <= 0.001 and others <= 0.01 * len(labels)


class Step(nn.Module):
    """A step as cheap as can be."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, batch: Batch, grid: Any) -> dict[str, Any]:
        return {"loss": (self.weight * batch.images).square().mean(), "count": len(batch)}


def stepped(monkeypatch: Any, backend: Any, processes: int = 1) -> tuple[dict[str, Any], torch.Tensor, CompiledStep]:
    """Values, gradient and step of one batch, through a compiler."""
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **how: compile(module, backend=backend, **how))
    monkeypatch.setattr(Accelerator, "num_processes", processes)
    plain, batch = Step(), Batch(torch.arange(4), torch.arange(12.0).view(4, 3))
    step = CompiledStep(plain, [])
    parameters = list(plain.parameters())
    given = (batch, (4, 4), Recipe(steps=1, batch=4), Accelerator(cpu=True), parameters, step.notes, 0, step)
    values, _ = _within_memory(step, *given)
    return values, parameters[0].grad, step


def failing(graph: Any, inputs: Any) -> Any:
    raise ValueError("no C++ compiler is found")


def test_a_compiler_that_fails_costs_no_training_and_is_said(monkeypatch, capsys) -> None:
    with monkeypatch.context() as patch:
        values, gradient, step = stepped(patch, "eager")
    assert step.used and not step.notes
    with monkeypatch.context() as patch:
        others, same, failed = stepped(patch, failing)
    assert values == others and torch.equal(gradient, same) and not failed.used
    (note,) = failed.notes
    assert note.startswith("not compiled, torch.compile failed: ") and "no C++ compiler" in note
    assert capsys.readouterr().out.splitlines() == [f"  {note}"]
    # in a group the others may wait for gradients that never come
    with monkeypatch.context() as patch, pytest.raises(TaskError, match="run with --no-compile"):
        stepped(patch, failing, processes=2)


def test_only_a_compilers_errors_are_its_own() -> None:
    assert from_compiler(torch._dynamo.exc.BackendCompilerFailed.__new__(torch._dynamo.exc.BackendCompilerFailed))
    for error in (RuntimeError("shapes differ"), TaskError("no label"), torch.OutOfMemoryError("CUDA out of memory")):
        assert not from_compiler(error)


def test_a_training_says_what_the_device_augments(monkeypatch) -> None:
    kinds: list[str] = []

    def moved(self: Toy) -> list[str]:
        kinds.append(self.trained_on)
        return ["colours"]

    monkeypatch.setattr(Toy, "moved", moved)
    task = Toy()
    model, schedule = task.model(tiny()), parse_schedule(4)
    training = finetune(task, model, Recipe(steps=1, batch=2), schedule, Accelerator(cpu=True))
    assert training.moved == ["colours"] and kinds == ["cpu"] and not training.compiled
    told = _notes(training)
    assert told["moved"] == ["colours"] and "compiled" not in told
    training.compiled, training.moved = True, []
    assert _notes(training)["compiled"] and "moved" not in _notes(training)
