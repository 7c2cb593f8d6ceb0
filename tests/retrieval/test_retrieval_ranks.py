"""Ranks against brute force in float64 and against CLIP_benchmark's definition; bad input."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import TaskError
from tasks.retrieval.ranks import chance, compute_ranks


def brute_force(image, text, pairs):
    """Full sorted lists in float64, one query after the other; right items sort last among equals."""
    scores = image.double() @ text.double().T
    own = pairs[None] == torch.arange(len(image))[:, None]

    def rank(row, right):
        order = sorted(range(len(row)), key=lambda j: (-row[j], bool(right[j])))
        return 1 + next(place for place, j in enumerate(order) if right[j])

    i2t = [rank(scores[i].tolist(), own[i]) for i in range(len(image))]
    t2i = [rank(scores[:, j].tolist(), own[:, j]) for j in range(len(text))]
    return i2t, t2i


def every_image_has_one(rng, images, captions):
    pairs = np.concatenate([np.arange(images), rng.integers(0, images, captions - images)])
    return torch.from_numpy(rng.permutation(pairs))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 23), st.integers(0, 40), st.integers(1, 9))
def test_equals_brute_force_with_ties(seed, images, extra, tile):
    rng = np.random.default_rng(seed)
    pairs = every_image_has_one(rng, images, images + extra)
    # small integers: products are exact, and many are equal
    image = torch.from_numpy(rng.integers(-1, 2, (images, 3))).float()
    text = torch.from_numpy(rng.integers(-1, 2, (images + extra, 3))).float()
    ranks = compute_ranks(image, text, pairs, tile=tile)
    assert (ranks.i2t.tolist(), ranks.t2i.tolist()) == brute_force(image, text, pairs)


def clip_benchmark_recall(scores, positive_pairs, k):
    """`recall_at_k(...) > 0` of CLIP_benchmark (metrics/zeroshot_retrieval.py), rows are queries."""
    count, items = scores.shape
    top = torch.topk(scores, k, dim=1)[1]
    onehot = torch.nn.functional.one_hot(top, num_classes=items)
    hits = (onehot * positive_pairs.view(count, 1, items)).sum(dim=(1, 2))
    return float(((hits / positive_pairs.sum(dim=1)) > 0).float().mean())


def test_equals_clip_benchmark_on_1k_images_and_5k_captions():
    generator = torch.Generator().manual_seed(3)
    pairs = torch.arange(1000).repeat_interleave(5)[torch.randperm(5000, generator=generator)]
    image = torch.randn(1000, 32, generator=generator, dtype=torch.float64)
    text = image[pairs] + 1.5 * torch.randn(5000, 32, generator=generator, dtype=torch.float64)
    metrics = compute_ranks(image, text, pairs, tile=384).metrics()
    scores = text @ image.T
    positive = torch.zeros(5000, 1000, dtype=torch.bool)
    positive[torch.arange(5000), pairs] = True
    for k in (1, 10):
        # their loop goes in batches of queries too
        t2i = [clip_benchmark_recall(s, p, k) for s, p in zip(scores.split(10), positive.split(10), strict=True)]
        i2t = [clip_benchmark_recall(s, p, k) for s, p in zip(scores.T.split(4), positive.T.split(4), strict=True)]
        assert metrics[f"t2i_R@{k}"] == pytest.approx(np.mean(t2i), abs=1e-6)
        assert metrics[f"i2t_R@{k}"] == pytest.approx(np.mean(i2t), abs=1e-6)
    assert 0.05 < metrics["t2i_R@1"] < 0.95


def test_collapsed_embeddings_get_nothing():
    ranks = compute_ranks(torch.ones(20, 4), torch.ones(100, 4), torch.arange(20).repeat_interleave(5))
    assert ranks.metrics()["i2t_R@10"] == ranks.metrics()["t2i_R@10"] == 0
    assert set(ranks.i2t.tolist()) == {96} and set(ranks.t2i.tolist()) == {20}


def test_same_text_of_another_image_is_wrong():
    image = torch.eye(4)
    text = torch.eye(4)[[0, 1, 2, 2]]  # caption 3 belongs to image 3 and repeats the text of caption 2
    ranks = compute_ranks(image, text, torch.arange(4))
    assert ranks.t2i.tolist() == [1, 1, 1, 4]
    assert ranks.i2t.tolist() == [1, 1, 2, 4]


def test_mean_and_median_rank_count_from_one():
    # each caption is closest to image 0, so that the right one of captions 0..3 ranks 1..4
    image, text = torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0])), torch.ones(4, 4)
    metrics = compute_ranks(image, text, torch.arange(4)).metrics()
    assert metrics["t2i_mean_rank"] == 2.5 and metrics["t2i_median_rank"] == 2.5


def test_chance_is_what_random_scores_get():
    generator = torch.Generator().manual_seed(0)
    pairs = torch.arange(100).repeat_interleave(5)
    found = []
    for _ in range(25):
        image, text = (torch.randn(n, 64, generator=generator, dtype=torch.float64) for n in (100, 500))
        found.append(compute_ranks(image, text, pairs).metrics())
    for name, value in chance(100, 500).items():
        assert np.mean([f[name] for f in found]) == pytest.approx(value, abs=0.015)


@pytest.mark.parametrize(
    ("image", "text", "pairs", "message"),
    [
        (torch.ones(2, 3), torch.ones(2, 4), [0, 1], "image embeddings have width 3, text embeddings 4"),
        (torch.full((2, 3), torch.nan), torch.ones(2, 3), [0, 1], "2 image embeddings have NaN .* row 0"),
        (torch.ones(2, 3), torch.full((2, 3), torch.inf), [0, 1], "text embeddings have NaN or infinite"),
        (torch.ones(0, 3), torch.ones(2, 3), [0, 1], "image embeddings are empty"),
        (torch.ones(2, 3), torch.ones(0, 3), [], "text embeddings are empty"),
        (torch.ones(2, 3), torch.ones(2, 3), [0, 2], "caption 1 points to image 2; there are images 0 to 1"),
        (torch.ones(2, 3), torch.ones(2, 3), [1, 1], "1 images have no caption, the first is image 0"),
        (torch.ones(2, 3), torch.ones(3, 3), [0, 1], "2 pairs for 3 captions"),
        (torch.ones(3), torch.ones(2, 3), [0, 1], r"must be \[N, D\], not \[3\]"),
    ],
)
def test_bad_input_is_named(image, text, pairs, message):
    with pytest.raises(TaskError, match=message):
        compute_ranks(image, text, torch.tensor(pairs, dtype=torch.int64))
