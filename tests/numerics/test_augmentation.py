"""Augmentation and classes: images move as their labels say, the same on every device, and labels reach the network."""

import dataclasses

import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from genvs import random
from genvs.config import AUGMENT_LABELS, GeNVSConfig
from genvs.models import GeNVS
from genvs.models.labels import MAX_SHIFT, augment_labels, augmented
from genvs.random import Stream
from tests.host_waits import host_waits
from tests.small_model import part_of, small_net, some_batch
from training.loss import GeNVSLoss, LossConfig, draw_augmentation

SIZE = 16


def labels_of(flip_x=0, flip_y=0, turns=0, x=0, y=0) -> torch.Tensor:
    numbers = [torch.tensor([value]) for value in (flip_x, flip_y, turns)]
    return augment_labels(*numbers, torch.tensor([[x, y]]) / (MAX_SHIFT * SIZE))


def some_images(count: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def test_flips_and_turns_are_torchs():
    images = some_images()
    assert torch.equal(labels_of(), torch.zeros(1, AUGMENT_LABELS))
    assert torch.equal(augmented(images, labels_of(flip_x=1)), images.flip(-1))
    assert torch.equal(augmented(images, labels_of(flip_y=1)), images.flip(-2))
    for turns in range(4):
        # Image rows go down: a quarter from x to y is clockwise.
        assert torch.equal(augmented(images, labels_of(turns=turns)), images.rot90(-turns, (-2, -1)))


@pytest.mark.parametrize(("x", "y"), [(2, 0), (-2, 0), (0, 1), (1, -2)])
def test_a_shift_mirrors_at_the_border(x, y):
    images = some_images()
    padded = F.pad(images, (2, 2, 2, 2), mode="reflect")
    expected = padded[..., 2 - y : 2 - y + SIZE, 2 - x : 2 - x + SIZE]
    assert torch.equal(augmented(images, labels_of(x=x, y=y)), expected)


def test_shift_labels_are_fractions_of_the_largest_shift():
    """EDM's labels are in [-1, 1], and an image moves by that times an eighth of its side, in whole pixels."""
    images = some_images(2)
    shift = torch.tensor([[1.0, 0.0], [-1.0, 0.7]])
    labels = augment_labels(*torch.zeros(3, 2), shift)
    assert torch.equal(labels[:, 4:], shift)
    moved = augmented(images, labels)
    assert torch.equal(moved[0, :, :, 2:], images[0, :, :, :-2])
    assert torch.equal(moved[1, :, 1:, :-2], images[1, :, :-1, 2:])


def test_steps_come_in_order_and_each_image_has_its_own():
    images = some_images(2)
    both = torch.cat([labels_of(flip_x=1, turns=1, y=2), labels_of(turns=3)])
    moved = augmented(images, both)
    first = images[:1].flip(-1).rot90(-1, (-2, -1))
    assert torch.equal(moved[:1, :, 2:], first[:, :, :-2]) and torch.equal(moved[1:], images[1:].rot90(1, (-2, -1)))


# What is drawn


def test_each_step_is_drawn_with_its_probability():
    labels = draw_augmentation(torch.arange(40000), 0.4)
    done = (labels != 0).double().mean(dim=0)
    # When its step is drawn, an image is flipped in half of the cases, and turned in three quarters: sideways in half.
    assert_close(done[:2], torch.full((2,), 0.2).double(), rtol=0, atol=0.01)
    turned = (labels[:, 2:4] != 0).any(dim=-1).double().mean()
    assert float(turned) == pytest.approx(0.3, abs=0.01)
    assert (labels[:, 3].abs() == 1).double().mean() == pytest.approx(0.2, abs=0.01)
    moved = (labels[:, 4:] != 0).all(dim=-1)
    assert torch.equal(moved, (labels[:, 4:] != 0).any(dim=-1)), "both axes or none"
    assert float(moved.double().mean()) == pytest.approx(0.4, abs=0.01)
    assert scipy.stats.kstest(labels[moved, 4], scipy.stats.uniform(-1, 2).cdf).pvalue > 0.01
    assert not draw_augmentation(torch.arange(1000), 0.0).any()


# In training


def net_of(num_classes: int = 0) -> GeNVS:
    return small_net(num_classes=num_classes, augment_labels=AUGMENT_LABELS, centre_on_colours=True)


LOSS = LossConfig(augment=1.0, conditioning_dropout=0.0)


def test_target_feature_image_and_label_are_augmented_alike_and_the_noise_is_not():
    net, batch, seen = net_of(), some_batch(3), {}

    def record(noisy, sigma, feature_image, keys, labels):
        seen.update(noisy=noisy, sigma=sigma, feature_image=feature_image, labels=labels)
        return torch.zeros_like(noisy)

    net.denoisers["rgb"].forward = record
    loss_fn = GeNVSLoss(LOSS, GeNVSConfig(), 0)
    terms = loss_fn(net, batch)
    keys = random.fold(random.sample_keys(0, batch.sample_index)[:, None], Stream.TARGET, torch.arange(2))
    noise = random.normal(random.fold(keys, Stream.NOISE), tuple(batch.targets.images.shape[2:])).flatten(0, 1)
    labels = seen["labels"]
    assert labels.shape == (6, AUGMENT_LABELS) and len(labels.unique(dim=0)) == 6
    target = augmented(batch.targets.images.flatten(0, 1), labels)
    assert_close(seen["noisy"], target + seen["sigma"] * noise)
    inputs, cameras = batch.inputs, batch.targets.cameras
    volume = net.encode(loss_fn.augment_inputs(inputs.images, random.sample_keys(0, batch.sample_index)))
    plain = net.render(volume, inputs.cameras, cameras, random.fold(keys, Stream.NETWORK)).flatten(0, 1)
    assert_close(seen["feature_image"], augmented(plain, labels))
    # The colours stay where the camera sees them; the denoising loss is about the augmented image.
    colours = (plain[:, :3] - (batch.targets.images.flatten(0, 1) - 1.0)).square().mean(dim=(1, 2, 3))
    assert_close(terms.rgb_loss.flatten(), colours)
    weight = (seen["sigma"] ** 2 + 0.25) / (seen["sigma"] * 0.5) ** 2
    assert_close(terms.loss.flatten(), weight.flatten() * target.square().mean(dim=(1, 2, 3)))


@pytest.mark.parametrize("num_classes", [0, 3])
def test_a_sample_is_augmented_the_same_in_any_batch_and_nothing_waits(num_classes):
    net, batch = net_of(num_classes), some_batch(3)
    classes = torch.eye(3) if num_classes else None
    loss_fn = GeNVSLoss(LOSS, GeNVSConfig(), 0)
    with host_waits() as found:
        together = loss_fn(net, dataclasses.replace(batch, classes=classes)).loss
    assert found == []
    alone = dataclasses.replace(part_of(batch, slice(1, 2)), classes=classes[1:2] if num_classes else None)
    assert_close(loss_fn(net, alone).loss, together[1:2], rtol=1e-3, atol=1e-4)


# Classes


def test_most_targets_have_their_class_as_label():
    classes = torch.eye(4)[torch.arange(60) % 4]
    batch, keys = dataclasses.replace(some_batch(60, num_inputs=1), classes=classes), torch.arange(120).view(60, 2)
    labels = GeNVSLoss(LossConfig(class_dropout=0.3), GeNVSConfig(), 0).labels(batch, keys)
    there = labels.any(dim=-1)
    assert float(there.double().mean()) == pytest.approx(0.7, abs=0.12)
    assert torch.equal(labels, classes[:, None] * there[..., None])
