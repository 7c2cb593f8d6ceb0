"""The least that a backbone may be, `(images, grid) -> Features`, works under every task."""

import pytest
from runner_tools import run_toy

# OWL-ViT multiplies patch tokens with the class token, which a plain backbone has not
BOXES = {"text": "tiny", "train_prompts": "plain", "prompts": "plain", "mosaics": [1.0, 0.0, 0.0], "merge": "none"}
FEW = {"steps": 2, "batch": 4, "warmup": 0}
TASKS = [
    {"task": "classification", "options": {"data": "scenes"}, "recipe": FEW},
    {"task": "classification", "options": {"data": "scenes", "protocol": "knn"}},
    {"task": "classification", "options": {"data": "scenes", "protocol": "linear"}, "recipe": FEW},
    {"task": "segmentation", "options": {"data": "scenes"}, "recipe": {**FEW, "drop_path": 0.1}},
    {"task": "segmentation", "options": {"data": "scenes", "head": "upernet"}, "recipe": FEW},
    {"task": "retrieval", "options": {"data": "scenes", "text": "tiny"}, "recipe": FEW},
    {"task": "retrieval", "options": {"data": "scenes", "text": "tiny", "locked": False}, "recipe": FEW},
    {"task": "image_retrieval", "options": {"data": "scenes"}},
    {"task": "upstream", "options": {"data": "scenes", "preset": "i21k_sup"}, "recipe": FEW},
    {"task": "detection", "options": {"data": "scenes", **BOXES}, "recipe": FEW},
]


@pytest.mark.slow  # every task draws, trains and evaluates a set
def test_a_plain_backbone_works_with_every_task(tmp_path) -> None:
    said: list[str] = []
    summary, rows = run_toy(tmp_path, said=said, backbones=["tiny_backbone:Plain"], eval=[4], tasks=TASKS)
    assert summary.status == 0, summary.lines()
    assert len(rows) == len(TASKS)
    assert all(row.cost["macs"] > 0 for row in rows)  # so it can be a candidate for the cheapest
    assert any("no stochastic depth: drop_path 0.1 is not applied" in line for line in said)
