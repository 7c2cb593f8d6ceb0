"""The snippets of docs/library.md run as they stand, one after the other."""

import re
from pathlib import Path

import torch

TEXT = (Path(__file__).parents[2] / "docs" / "library.md").read_text(encoding="utf-8")


def test_the_snippets_run(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    snippets = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    assert len(snippets) == 4
    for snippet in snippets:
        exec(compile(snippet, "docs/library.md", "exec"), names)
    assert names["features"].map.shape == (2, 8, 8, 128) and names["tokens"].shape == (2, 65, 128)
    assert names["fixed"].base_kernel.shape == (128, 3, 15, 15)
    assert names["maps"][3].shape == (2, 128, 10, 10) and names["grid"] == [12, 12]
    with torch.no_grad():
        torch.testing.assert_close(names["logits"], names["traced"](names["pixels"]), atol=1e-4, rtol=1e-4)
