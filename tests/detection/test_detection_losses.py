"""Losses and matching against loops in float64, brute force, transformers' DETR losses; the traps of the recipe."""

import itertools
import math

import pytest
import torch

from tasks.detection.boxes import corners, overlaps
from tasks.detection.model.heads import MASKED
from tasks.detection.model.losses import detection_losses, focal, match, matching_cost


def scene(batch=3, tokens=12, instances=5, queries=6, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, tokens, queries, generator=g, dtype=dtype) - 2
    boxes = torch.rand(batch, tokens, 4, generator=g, dtype=dtype) * 0.4 + 0.1
    truth = torch.rand(batch, instances, 4, generator=g, dtype=dtype) * 0.4 + 0.1
    labels = torch.nn.functional.one_hot(torch.randint(queries, (batch, instances), generator=g), queries).bool()
    labels[:, 0, 1] = True  # several labels on one instance
    present = torch.ones(batch, instances, dtype=torch.bool)
    present[1, 3:] = False
    return logits, boxes, labels, truth, present


def focal_of(x, t, alpha=0.3, gamma=2):
    p = 1 / (1 + math.exp(-x))
    return -alpha * (1 - p) ** gamma * math.log(p) if t else -(1 - alpha) * p**gamma * math.log(1 - p)


def giou_of(a, b, eps=1e-6):
    ax0, ay0, ax1, ay1 = a[0] - a[2] / 2, a[1] - a[3] / 2, a[0] + a[2] / 2, a[1] + a[3] / 2
    bx0, by0, bx1, by1 = b[0] - b[2] / 2, b[1] - b[3] / 2, b[0] + b[2] / 2, b[1] + b[3] / 2
    shared = max(0, min(ax1, bx1) - max(ax0, bx0)) * max(0, min(ay1, by1) - max(ay0, by0))
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - shared
    hull = (max(ax1, bx1) - min(ax0, bx0)) * (max(ay1, by1) - min(ay0, by0))
    return shared / (union + eps) - (hull - union) / (hull + eps)


def xyxy(b):
    return [b[0] - b[2] / 2, b[1] - b[3] / 2, b[0] + b[2] / 2, b[1] + b[3] / 2]


def loops(logits, boxes, labels, truth, present):
    """The specification, one pair at a time: cost of L1 in centre form, loss of L1 in corners."""
    sums = {"class": 0.0, "l1": 0.0, "giou": 0.0}
    for b in range(len(logits)):
        rows = [m for m in range(len(truth[b])) if present[b, m]]
        cost = torch.zeros(len(rows), logits.shape[1], dtype=torch.float64)
        for i, m in enumerate(rows):
            for n in range(logits.shape[1]):
                for q in range(logits.shape[2]):
                    if labels[b, m, q]:
                        x = float(logits[b, n, q])
                        cost[i, n] += focal_of(x, True) - focal_of(x, False)
                found, true = boxes[b, n].tolist(), truth[b, m].tolist()
                cost[i, n] += sum(abs(f - t) for f, t in zip(found, true, strict=True)) - giou_of(found, true)
        given = dict(zip(*(p.tolist() for p in match(cost)), strict=True))
        wanted = torch.zeros(logits.shape[1:], dtype=torch.bool)
        for i, n in given.items():
            wanted[n] = labels[b, rows[i]]
            found, true = boxes[b, n].tolist(), truth[b, rows[i]].tolist()
            sums["l1"] += sum(abs(f - t) for f, t in zip(xyxy(found), xyxy(true), strict=True)) / max(len(rows), 1)
            sums["giou"] += (1 - giou_of(found, true)) / max(len(rows), 1)
        total = sum(
            focal_of(float(logits[b, n, q]), bool(wanted[n, q]))
            for n in range(logits.shape[1])
            for q in range(logits.shape[2])
        )
        sums["class"] += total / max(int(wanted.sum()), 1)
    return {k: v / len(logits) for k, v in sums.items()}


def test_losses_equal_loops():
    given = scene()
    expected = loops(*given)
    found = detection_losses(*given)
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-9), name
    assert float(found["loss"]) == pytest.approx(sum(expected.values()), rel=1e-9)


def test_cost_and_loss_measure_boxes_in_different_spaces():
    """A box wider by 0.2 about its centre: 0.2 in centre form, 0.1 + 0.1 in corners; moved by 0.2: 0.2 against 0.4."""
    logits, labels = torch.full((1, 1, 1), -50.0).double(), torch.ones(1, 1, 1, dtype=torch.bool)
    truth = torch.tensor([[[0.4, 0.5, 0.2, 0.2]]]).double()
    boxes = torch.tensor([[[0.6, 0.5, 0.2, 0.2]]]).double()
    cost = matching_cost(logits[0], boxes[0], labels[0], truth[0])
    classes = matching_cost(logits[0], truth[0], labels[0], truth[0]) + 1  # at the same box L1 is 0 and gIoU 1
    giou = giou_of(boxes[0, 0].tolist(), truth[0, 0].tolist())
    assert float(cost - classes) == pytest.approx(0.2 - giou, abs=1e-4)
    found = detection_losses(logits, boxes, labels, truth, torch.ones(1, 1, dtype=torch.bool))
    assert float(found["l1"]) == pytest.approx(0.4)


def test_class_cost_sums_over_labels():
    logits, boxes, labels, truth, _ = (v[0] for v in scene())
    one, two = labels.clone(), labels.clone()
    both = torch.zeros_like(labels)
    one[:], two[:] = False, False
    one[:, 0], two[:, 3] = True, True
    both[:, [0, 3]] = True
    none = torch.zeros_like(labels)

    def cost(chosen):
        return matching_cost(logits, boxes, chosen, truth)

    assert torch.allclose(cost(both) - cost(none), cost(one) + cost(two) - 2 * cost(none))
    p = logits[:, 0].sigmoid()  # what the focal loss of a label changes when it becomes positive
    gained = 0.3 * (1 - p) ** 2 * -p.log() - 0.7 * p**2 * -(1 - p).log()
    assert torch.allclose(cost(one) - cost(none), gained.expand_as(cost(one)), atol=1e-6)


def test_matching_equals_brute_force():
    cost = torch.rand(4, 5, generator=torch.Generator().manual_seed(2))
    rows, columns = match(cost)
    best = min(itertools.permutations(range(5), 4), key=lambda p: sum(float(cost[i, n]) for i, n in enumerate(p)))
    assert rows.tolist() == [0, 1, 2, 3] and tuple(columns.tolist()) == best


def test_matching_survives_what_is_no_number():
    cost = torch.rand(3, 4)
    cost[0, 1], cost[1, 2], cost[2, 0] = math.nan, math.inf, -math.inf
    rows, columns = match(cost)
    assert rows.tolist() == [0, 1, 2] and len(set(columns.tolist())) == 3 and columns[2] == 0
    assert len(match(torch.full((3, 4), math.nan))[0]) == 3
    assert match(torch.zeros(0, 4))[0].shape == (0,)
    tied = torch.zeros(3, 6)
    assert torch.equal(match(tied)[1], match(tied)[1])


def test_more_instances_than_tokens():
    logits, boxes, labels, truth, present = scene(tokens=3)
    found = detection_losses(logits.requires_grad_(), boxes.requires_grad_(), labels, truth, present)
    assert len(match(torch.rand(5, 3))[0]) == 3
    found["loss"].backward()
    assert logits.grad.isfinite().all() and boxes.grad.isfinite().all()


@pytest.mark.parametrize("empty", [[0], [0, 1, 2]])
def test_empty_images_teach_only_their_negatives(empty):
    logits, boxes, labels, truth, present = scene()
    present[empty] = False
    logits.requires_grad_(), boxes.requires_grad_()
    detection_losses(logits, boxes, labels, truth, present)["loss"].backward()
    assert (boxes.grad[empty] == 0).all() and boxes.grad.isfinite().all()
    assert (logits.grad[empty] > 0).all()  # all pushed down: every query is a negative
    alone = detection_losses(logits.detach()[:1], boxes[:1], labels[:1], truth[:1], present[:1])
    assert float(alone["class"]) == pytest.approx(float(focal(logits.detach()[:1], torch.zeros(1, 12, 6)).sum()))


def test_no_instances_at_all_in_the_batch():
    logits, boxes, *_ = scene()
    found = detection_losses(
        logits, boxes, torch.zeros(3, 0, 6, dtype=torch.bool), torch.zeros(3, 0, 4), torch.zeros(3, 0, dtype=torch.bool)
    )
    assert float(found["l1"]) == float(found["giou"]) == 0


def test_padding_queries_and_instances_change_nothing():
    logits, boxes, labels, truth, present = scene()
    logits.requires_grad_(), boxes.requires_grad_()
    detection_losses(logits, boxes, labels, truth, present)["loss"].backward()
    more = torch.full((3, 12, 4), MASKED, dtype=torch.float64, requires_grad=True)
    wide, near = logits.detach().clone().requires_grad_(), boxes.detach().clone().requires_grad_()
    found = detection_losses(
        torch.cat([wide, more], -1), near, torch.nn.functional.pad(labels, (0, 4, 0, 3)),
        torch.nn.functional.pad(truth, (0, 0, 0, 3)), torch.nn.functional.pad(present, (0, 3)),
    )  # fmt: skip
    found["loss"].backward()
    assert float(found["loss"]) == pytest.approx(float(detection_losses(logits, boxes, labels, truth, present)["loss"]))
    assert torch.allclose(wide.grad, logits.grad) and torch.allclose(near.grad, boxes.grad)
    assert (more.grad == 0).all()


def test_order_of_queries_and_instances_does_not_matter():
    logits, boxes, labels, truth, present = scene()
    q, m = torch.randperm(6), torch.randperm(5)
    moved = detection_losses(logits[..., q], boxes, labels[:, m][..., q], truth[:, m], present[:, m])
    assert float(moved["loss"]) == pytest.approx(float(detection_losses(logits, boxes, labels, truth, present)["loss"]))


def test_values_at_the_prior():
    """The numbers that the initial shift of -4.59512 gives."""
    x = torch.tensor([-4.59512])
    assert float(focal(x, torch.zeros(1))) == pytest.approx(7.04e-7, rel=0.01)
    assert float(focal(x, torch.ones(1))) == pytest.approx(1.354, rel=0.001)
    negatives = focal(x.expand(2304 * 99), torch.zeros(2304 * 99))
    assert float(negatives.double().sum()) == pytest.approx(0.16, rel=0.01)


def test_focal_and_overlaps_equal_transformers():
    from transformers.loss.loss_for_object_detection import generalized_box_iou, sigmoid_focal_loss

    logits, boxes, labels, truth, _ = scene()
    wanted = torch.rand(logits.shape).round().double()
    theirs = sigmoid_focal_loss(logits, wanted, num_boxes=1, alpha=0.3, gamma=2)  # it takes a mean over tokens
    assert float(focal(logits, wanted).sum()) == pytest.approx(float(theirs) * logits.shape[1], rel=1e-9)
    a, b = corners(boxes[0]), corners(truth[0])
    assert torch.allclose(overlaps(a[:, None], b)[1], generalized_box_iou(a, b), atol=1e-3)
    giant = torch.tensor([[0.0, 0.0, 1e4, 1e4]]).double()
    other = torch.tensor([[5e3, 5e3, 2e4, 3e4]]).double()
    assert torch.allclose(overlaps(giant, other)[1], generalized_box_iou(giant, other)[0], atol=1e-9)


def test_boxes_without_area_have_a_number():
    point = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
    iou, general = overlaps(point, point)
    assert float(iou) == 0 and float(general) == 0


def test_reduced_precision_reaches_neither_losses_nor_matching():
    logits, boxes, labels, truth, present = scene(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = detection_losses(logits, boxes, labels, truth, present)
    assert all(v.dtype == torch.float32 for v in found.values())
    plain = detection_losses(logits, boxes, labels, truth, present)
    assert all(torch.equal(found[k], plain[k]) for k in plain)
