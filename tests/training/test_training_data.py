from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from training.conftest import N_TEST, N

from resattn.training import data
from resattn.training.config import ConfigError
from resattn.training.digits import cluttered_digits


def batches(feed: data.Feed, epoch: int, **share: int) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*feed.batches(epoch, **share), strict=True)
    return torch.cat(images), torch.cat(labels)


def pixels_of(feed: data.Feed, images: torch.Tensor) -> torch.Tensor:
    """Back from normalised images to (N, 32, 32, 3) pixels."""
    return (images.permute(0, 2, 3, 1) / feed.scale + feed.mean).round().to(torch.uint8)


# ---- cluttered digits


def test_digits_are_the_same_bits_in_another_process():
    code = "from resattn.training import data; print(data.digits(train=40, test=20).digest)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert data.digits(train=40, test=20).digest == other
    assert data.digits(1, train=40, test=20).digest != other


def test_the_default_digits_take_seconds_and_are_balanced():
    start = time.process_time()
    dataset = data.load("cluttered-digits")
    assert time.process_time() - start < 20
    assert dataset.images.shape == (10_000, 3, 32, 32)
    assert dataset.test_images.shape == (2_000, 3, 32, 32)
    assert dataset.images.dtype == torch.uint8
    counts = torch.bincount(dataset.labels, minlength=10)
    assert counts.min() > 850
    assert counts.max() < 1150
    assert len({i.numpy().tobytes() for i in dataset.images}) == 10_000


def test_train_and_test_digits_come_from_other_hands(monkeypatch):
    # With each source digit drawn as its number, the numbers in the two sets must differ.
    from resattn.training import digits

    seen = []
    monkeypatch.setattr(digits, "_draw", lambda ink, labels, n, seed: seen.append((ink, labels)))
    cluttered_digits()
    (train, train_labels), (test, test_labels) = seen
    as_sets = [{d.tobytes() for d in part} for part in (train, test)]
    assert not as_sets[0] & as_sets[1]
    assert len(train) + len(test) == 1797
    assert set(train_labels) == set(test_labels) == set(range(10))


def test_the_foreground_is_the_digit():
    train, _ = cluttered_digits(train=300, test=1)
    images, foreground = train.images.astype(int), train.foreground
    assert foreground.shape == (300, 32, 32)
    area = foreground.mean((1, 2))
    assert area.min() > 0.02
    assert area.max() < 0.4
    inside = np.array([i[:, f].mean() for i, f in zip(images, foreground, strict=True)])
    outside = np.array([i[:, ~f].mean() for i, f in zip(images, foreground, strict=True)])
    assert (inside > outside).mean() > 0.99
    # Ink of one colour but for grain: the spread inside is that of the grain and of blended edges, not of the ground.
    middle = np.array([np.median(i[:, f], axis=1) for i, f in zip(images, foreground, strict=True)])
    near = np.abs(images - middle[:, :, None, None]).max(1) <= 13
    assert near[foreground].mean() > 2 * near[~foreground].mean()
    # A digit lies wholly inside, at a random place.
    rows = [np.flatnonzero(f.any(1)) for f in foreground]
    assert np.std([r.mean() for r in rows]) > 1.5
    assert max(r[-1] - r[0] + 1 for r in rows) <= 24


# ---- batches


def test_a_batch_is_a_crop_of_the_padded_image_or_its_mirror(digits, config):
    size = 8
    dataset = data.Dataset(**vars(digits) | {"mirrors": True})
    feed = data.prepare(dataset, config(images=size, batch_size=size, seed=5))
    crops = set()
    for epoch in range(3):
        images, labels = batches(feed, epoch)
        for pixels, label in zip(pixels_of(feed, images), labels, strict=True):
            found = [
                (i, y, x, mirrored)
                for i in range(size)
                for y in range(9)
                for x in range(9)
                for mirrored in (False, True)
                if (
                    crop := np.pad(dataset.images[i].permute(1, 2, 0), ((4, 4), (4, 4), (0, 0)))[y : y + 32, x : x + 32]
                ).shape
                and (crop[:, ::-1] if mirrored else crop).tobytes() == pixels.numpy().tobytes()
            ]
            assert len(found) == 1
            assert dataset.labels[found[0][0]] == label
            crops.add(found[0][1:])
        assert sorted(labels.tolist()) == sorted(dataset.labels[:size].tolist())
    assert len(crops) > 15
    assert {mirrored for *_, mirrored in crops} == {False, True}


def test_digits_are_never_mirrored_and_without_augmentation_never_moved(digits, config):
    feed = data.prepare(digits, config(augment="none"))
    images, _ = batches(feed, 0)
    there = {i.permute(1, 2, 0).numpy().tobytes() for i in digits.images}
    assert {p.numpy().tobytes() for p in pixels_of(feed, images)} == there
    moved = data.prepare(digits, config())
    assert moved.moves
    assert not moved.mirrors


def test_what_a_run_sees_depends_on_seed_and_epoch_alone(digits, config):
    first = batches(data.prepare(digits, config(seed=1)), 2)
    other_network = config(seed=1, spec=config().spec.__class__.from_json(config().spec.to_json() | {"width": 8}), lr=1)
    again = batches(data.prepare(digits, other_network), 2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for seed, epoch in ((2, 2), (1, 3)):
        assert not torch.equal(first[0], batches(data.prepare(digits, config(seed=seed)), epoch)[0])


def test_processes_share_each_batch(digits, config):
    feed = data.prepare(digits, config())
    whole = list(feed.batches(0))
    parts = [list(feed.batches(0, rank=rank, world=2)) for rank in range(2)]
    for (images, labels), *shares in zip(whole, *parts, strict=True):
        assert [len(part_labels) for _, part_labels in shares] == [10, 10]
        assert torch.equal(images, torch.stack([i for i, _ in shares], 1).flatten(0, 1))
        assert torch.equal(labels, torch.stack([y for _, y in shares], 1).flatten())
    tests = [torch.cat([y for _, y in feed.test_batches(rank=rank, world=3)]) for rank in range(3)]
    assert sum(map(len, tests)) == N_TEST
    assert torch.equal(tests[1], digits.test_labels[1::3])


def test_normalisation(digits, config):
    feed = data.prepare(digits, config(augment="none"))
    images, _ = batches(feed, 0)
    assert images.mean(0).abs().max() < 1e-5  # every pixel of the mean image is 0
    by_colour = data.prepare(digits, config(augment="none", normalise="channel"))
    images, _ = batches(by_colour, 0)
    assert images.mean((0, 2, 3)).abs().max() < 1e-5
    assert images.square().mean().item() == pytest.approx(1, rel=1e-5)
    assert images.mean(0).abs().max() > 0.05
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_the_mean_is_that_of_the_images_of_the_run(digits, config):
    feed = data.prepare(digits, config(images=40))
    assert torch.allclose(feed.mean, digits.images[:40].double().mean(0).permute(1, 2, 0).float())
    assert len(feed.labels) == 40


def test_more_images_than_there_are_is_refused(digits, config):
    with pytest.raises(ConfigError, match=f"images must be in .1, {N}., as this cluttered-digits has {N}, found 200"):
        data.prepare(digits, config(images=200))
    with pytest.raises(ConfigError, match="test_images must be in"):
        data.prepare(digits, config(test_images=0))


# ---- label noise


@pytest.mark.parametrize("noise", [0.1, 0.5, 0.7])
def test_the_noise_is_the_papers_matrix(noise):
    labels = torch.arange(10).repeat(4000)
    noisy = data.noisy(labels, 10, noise, seed=0)
    counts = torch.zeros(10, 10).index_put((labels, noisy), torch.ones(()), accumulate=True) / 4000
    q = torch.full((10, 10), noise / 9).fill_diagonal_(1 - noise)
    assert (counts - q).abs().max() < 5 * (0.25 / 4000) ** 0.5


def test_noise_is_drawn_once_per_seed_and_counted(digits, config):
    feeds = [data.prepare(digits, config(label_noise=0.4, seed=seed)) for seed in (0, 0, 1)]
    assert torch.equal(feeds[0].labels, feeds[1].labels)
    assert not torch.equal(feeds[0].labels, feeds[2].labels)
    assert feeds[0].n_flipped == int((feeds[0].labels != digits.labels).sum())
    assert 0.25 * N < feeds[0].n_flipped < 0.55 * N
    assert data.prepare(digits, config()).n_flipped == 0
    assert torch.equal(feeds[0].test_labels, digits.test_labels)
