"""The verb `bench`: equal outputs before any timing, every column filled or said why, one-line errors."""

import json

import pytest
import torch
from front_door import call

from backbones import build_backbone
from backbones.cost import macs
from backbones.flexible import FlexiBackbone
from benchmarks.speed import contenders
from benchmarks.speed.contenders import build, fixed_vit, transformers_vit
from benchmarks.speed.throughput import take_turns

SMALL = ["--batch", "2", "--turns", "2"]


@pytest.fixture(scope="module")
def encoder() -> FlexiBackbone:
    torch.manual_seed(0)
    return build_backbone("flexivit_nano", pretrained=False).eval()


def test_table_and_json(monkeypatch, capsys, tmp_path) -> None:
    out = tmp_path / "new" / "speed.md"
    arguments = [*SMALL, "--grids", "4,5", "--no-compile", "--training", "--json", "--out", str(out)]
    code, text, _ = call(monkeypatch, capsys, "bench", "flexivit_nano", *arguments)
    found = json.loads(text)[0]
    row = found["grids"][0]
    assert code == 0 and [r["grid"] for r in found["grids"]] == [4, 5]
    assert set(row["images_per_second"]) == {"ours", "timm", "transformers"} and row["ratio_compiled"] is None
    assert min(row["images_per_second"].values()) > 0 and 0 < row["peak_share"]["ours"] < 2
    assert set(row["training_images_per_second"]) == set(row["latency_ms"]) == {"ours", "timm"}
    assert row["peak_bytes"] is None and any("GPU only" in n for n in found["notes"])
    # by hand: 17 tokens through six blocks of 12 D^2 weights and attention, and the patches
    assert row["macs"] == 17 * (6 * 12 * 128**2 + 2 * 17 * 128 * 6) + 3 * 128 * 120 * 120
    lines = [line for line in out.read_text().splitlines() if line.startswith("|")]
    assert len(lines) == 4 and len({line.count("|") for line in lines}) == 1
    assert "--training" in out.read_text() and "revision" in out.read_text() and "fused attention" in out.read_text()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["flexivit_nanno"], "flexivit_nano"),
        (["flexivit_nano", "--grids", "4,7"], "grid 7 does not divide"),
        (["flexivit_nano", "--grids", "four"], "four"),
        (["flexivit_nano", "--device", "tpu"], "tpu"),
        (["timm:eva02_tiny_patch14_224"], "timm:eva02_tiny_patch14_224 is no timm VisionTransformer"),
    ],
    ids=["backbone", "grid", "words", "device", "trunk"],
)
def test_user_errors_are_one_line(monkeypatch, capsys, arguments, words) -> None:
    code, _, err = call(monkeypatch, capsys, "bench", *arguments, *SMALL)
    assert code == 2 and words in err and err.count("\n") == 1


@pytest.mark.parametrize("grid", [(4, 4), (15, 15)])
def test_timm_at_one_grid_is_the_flexible_encoder(encoder, grid) -> None:
    images = torch.randn(2, 3, 120, 120)
    fixed = fixed_vit(encoder, grid)
    assert fixed.patch_embed.grid_size == grid
    with torch.no_grad():
        torch.testing.assert_close(fixed(images), encoder(images, grid).pooled, rtol=1e-5, atol=1e-5)


def test_transformers_has_the_same_matrices(encoder) -> None:
    theirs = transformers_vit(encoder, (8, 8))
    linear = [m.weight.numel() for m in theirs.modules() if isinstance(m, torch.nn.Linear)]
    tokens, width = 8 * 8 + 1, 128
    assert macs(encoder, (8, 8)) == tokens * (sum(linear) + 2 * tokens * width * 6) + 3 * width * 120 * 120


def test_other_outputs_are_never_timed(encoder, monkeypatch) -> None:
    real = contenders.fixed_vit

    def broken(*arguments):
        fixed = real(*arguments)
        with torch.no_grad():
            fixed.norm.bias.add_(0.01)
        return fixed

    monkeypatch.setattr(contenders, "fixed_vit", broken)
    with torch.no_grad(), pytest.raises(ValueError, match="outputs of timm differ by up to 0.01"):
        build(encoder, (4, 4), torch.randn(1, 3, 120, 120), compile=False)


def test_a_compiler_that_fails_is_told(encoder, monkeypatch) -> None:
    def no_compiler(*_):
        raise RuntimeError("No working C++ compiler found\nmore")

    monkeypatch.setattr(torch, "compile", lambda model, **_: no_compiler)
    with torch.no_grad():
        found, notes = build(encoder, (4, 4), torch.randn(1, 3, 120, 120))
    assert [c.name for c in found] == ["ours", "timm", "transformers"]
    assert len(notes) == 1 and "No working C++ compiler found" in notes[0] and "more" not in notes[0]


def test_turns_are_interleaved_and_the_warm_up_is_left_out() -> None:
    order: list[str] = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    times = take_turns(calls, 3, torch.device("cpu"))
    assert len(times["a"]) == len(times["b"]) == 3 and len(order) == 10
    assert all({*order[i : i + 2]} == {"a", "b"} for i in range(0, 10, 2)) and order[:4] == ["b", "a", "a", "b"]


@pytest.mark.slow
def test_compiled_models_are_timed(monkeypatch, capsys) -> None:
    code, text, _ = call(monkeypatch, capsys, "bench", "flexivit_nano", "--grids", "4", *SMALL, "--json")
    row = json.loads(text)[0]["grids"][0]
    assert code == 0 and row["ratio_compiled"] > 0 and row["images_per_second"]["ours compiled"] > 0
