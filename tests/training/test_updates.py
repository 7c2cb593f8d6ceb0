"""Updates of many parameters at once are those of each alone, bit for bit on a CPU."""

import torch

from benchmarks.engine.training.updates.adam import AdamWBf16

SHAPES = ((64, 33), (7,), (3, 5, 2, 2))


def trained(together: bool) -> list[torch.Tensor]:
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(*shape)) for shape in SHAPES]
    groups = [parameters] if together else [[p] for p in parameters]
    optimizers = [AdamWBf16(group, lr=1e-2, weight_decay=0.1) for group in groups]
    for step in range(5):
        for i, parameter in enumerate(parameters):
            gradient = torch.randn_like(parameter)
            parameter.grad = None if (i, step) == (1, 2) else gradient  # its count of steps is then another
        for optimizer in optimizers:
            optimizer.step()
            if step == 3:
                optimizer.load_state_dict(optimizer.state_dict())
    return parameters


def test_adamw_with_a_moment_in_bfloat16() -> None:
    assert all(torch.equal(a, b) for a, b in zip(trained(True), trained(False), strict=True))
