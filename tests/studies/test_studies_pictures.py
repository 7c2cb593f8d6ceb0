"""Pictures of a study say how far they are."""

import torch

from benchmarks.studies.pictures import followed


def test_progress_has_rate_and_time_left_and_keeps_every_batch() -> None:
    batches = [(torch.full((50, 3, 2, 2), float(i)), torch.full((50,), i)) for i in range(4)]
    lines: list[str] = []
    labels = [int(one[0]) for _, one in followed(iter(batches), 200, lines.append, every=0.0)]
    assert labels == [0, 1, 2, 3]
    assert lines[0] == "0/200 pictures"
    assert lines[2].startswith("100/200 pictures, ") and lines[2].endswith(" left")
    assert lines[-1].startswith("200 pictures in ")
