"""Pictures held where the model computes: the same training as by a loader, within the memory that it may take."""

import pytest
import runner_tools  # noqa: F401  (makes the plug-in importable)
import torch
from accelerate import Accelerator
from data_tools import small_pictures
from flexivit_toy import Quarters, Toy

from backbones import build_backbone
from backbones.grids import parse_schedule
from benchmarks.engine.batches.resident import Residents
from benchmarks.engine.randomness import training_indices, training_places
from benchmarks.engine.suite import changed
from benchmarks.engine.training.ledger import Ledger
from benchmarks.engine.training.loop import finetune
from benchmarks.engine.training.updates.muon import MuonAdamW
from tasks import build_task


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    root = small_pictures(tmp_path_factory.mktemp("data"))
    made = build_task("upstream", root, {"preset": "nano", "data": "small/set", "image_size": 120})
    made.recipe = changed(made.recipe, {"steps": 3, "batch": 4, "warmup": 1, "optimizer": "muon"})
    return made


def train(task, residents, **more):
    torch.manual_seed(0)
    model = task.model(build_backbone("flexivit_nano", pretrained=False))
    told = finetune(
        task, model, task.recipe, parse_schedule("random:4,5"), Accelerator(cpu=True), residents=residents, **more
    )
    return told.losses, model.state_dict()


def test_held_pictures_train_as_those_of_a_loader(task, tmp_path) -> None:
    said: list[str] = []
    losses, weights = train(task, Residents(1.0, said.append))
    again, others = train(task, Residents(1e-6, said.append))
    assert len(said) == 1 and "--resident-gib" in said[0]
    assert losses == again == train(task, None)[0]
    assert all(torch.equal(value, others[name]) for name, value in weights.items())

    class Killed(Exception):
        pass

    def kill(step: int, *_: object) -> None:
        if step == 3:
            raise Killed

    with pytest.raises(Killed):
        train(task, Residents(1.0, said.append), checkpoint=tmp_path / "c.pt", every_seconds=0, progress=kill)
    assert train(task, Residents(1.0, said.append), checkpoint=tmp_path / "c.pt", every_seconds=0)[0] == losses


def test_a_split_is_read_once(task) -> None:
    held, device = Residents(1.0), torch.device("cpu")
    first = held.of(task, task.dataset("train"), device)
    assert held.of(task, task.dataset("train"), device) is first
    picture, label = task.dataset("train").stored(5)
    batch = first.batch(torch.tensor([5, 2]))
    assert torch.equal(batch.images[0], picture) and int(batch.targets["label"][0]) == label and len(batch) == 2
    assert Residents(0).of(task, task.dataset("train"), device) is None


def test_a_plug_in_is_held_by_the_fingerprint_that_every_task_has() -> None:
    class Stored(Quarters):
        def stored(self, i: int):
            return self[i]

    toy = Toy()
    toy.dataset = lambda split: Stored(0, 6)
    held = Residents(1.0).of(toy, toy.dataset("train"), torch.device("cpu"))
    assert held is not None and torch.equal(held.batch(torch.tensor([4])).images[0], Quarters(0, 6)[4][0])


def test_places_are_whole_epochs_one_after_another() -> None:
    found = [pair for step in range(7) for pair in training_indices(3, step, 10, 35)]
    for epoch in (0, 1):
        assert sorted(i for i, e in found if e == epoch) == list(range(35))
    index, epoch = training_places(3, 3, 10, 35)
    assert list(zip(index.tolist(), epoch.tolist(), strict=True)) == training_indices(3, 3, 10, 35)


def test_muon_is_torch_s_and_adamw_beside_it() -> None:
    drawn = torch.Generator().manual_seed(0)
    matrices = [torch.randn(shape, generator=drawn) for shape in ((24, 8), (8, 8), (24, 8), (8, 16))]
    vector = torch.randn(5, generator=drawn)
    ours, theirs = ([torch.nn.Parameter(m.clone()) for m in matrices] for _ in range(2))
    own, other = torch.nn.Parameter(vector.clone()), torch.nn.Parameter(vector.clone())
    groups = [{"params": ours, "muon": True, "weight_decay": 0.1}, {"params": [own], "weight_decay": 0.0}]
    optimizer = MuonAdamW(groups, lr=0.02, fused=True)
    muon = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW([other], lr=0.02, weight_decay=0.0)
    for _ in range(4):
        for a, b in zip([*ours, own], [*theirs, other], strict=True):
            a.grad = torch.randn(a.shape, generator=drawn)
            b.grad = a.grad.clone()
        for each in (optimizer, muon, adam):
            each.step()
    for a, b in zip([*ours, own], [*theirs, other], strict=True):
        assert torch.allclose(a, b, atol=3e-3 if a.ndim == 2 else 1e-6)  # sums of products in bfloat16
    state = optimizer.state_dict()
    fresh = MuonAdamW(groups, lr=0.02, fused=True)
    fresh.load_state_dict(state)
    assert torch.equal(fresh.state[ours[0]]["momentum"], optimizer.state[ours[0]]["momentum"])


def test_a_ledger_gives_numbers_in_order() -> None:
    ledger = Ledger(torch.device("cpu"))
    assert not ledger.due
    ledger.add(0, {"loss": 1.5, "grad_norm": torch.tensor(2.0)})
    assert ledger.due and ledger.read() == [(0, {"loss": 1.5, "grad_norm": 2.0})]
    assert ledger.read() == []
