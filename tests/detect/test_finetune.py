"""Fine-tuning: who trains and who judges, what a batch holds, and which weights remain."""

import pytest
import torch
from torch import nn

from visa.detect.finetune import Labelled, TwoClass, augment, balanced_batches, fine_tune, hold_out
from visa.errors import VisaError

TINY = TwoClass(size=(32, 32), batch_size=4, epochs=1, min_steps=40, checks=20, precision="32-true")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def data(normal=10, anomaly=10, seed=0):
    """Noise, the anomalous images with a bright square, and its mask."""
    labels = torch.tensor([0] * normal + [1] * anomaly)
    images = torch.randint(0, 100, (len(labels), 3, 32, 32), generator=seeded(seed), dtype=torch.uint8)
    masks = torch.zeros(len(labels), 32, 32, dtype=torch.uint8)
    for i in range(normal, len(labels)):
        top, left = torch.randint(0, 20, (2,), generator=seeded(1000 * seed + i)).tolist()
        images[i, :, top : top + 12, left : left + 12] = 250
        masks[i, top : top + 12, left : left + 12] = 1
    return Labelled(images, masks, labels)


class Linear(nn.Module):
    """A logit for each image from its pixels' mean and deviation."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Identity()
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        features = torch.stack([torch.ones(len(x)), x.mean((1, 2, 3)), x.std((1, 2, 3))], dim=1)
        return self.backbone(features) @ self.weight


def squared(logits, masks):
    return (logits - masks.amax((1, 2))) ** 2


def test_each_class_gives_a_share_of_its_images_at_least_one():
    labels = torch.tensor([0, 1] * 5 + [0] * 25)
    train, judge = hold_out(labels, 0.2, seeded())
    assert sorted([*train.tolist(), *judge.tolist()]) == list(range(35))
    assert labels[judge].tolist() == [0] * 6 + [1]
    for share in (0.0, 0.9):
        assert [len(part) for part in hold_out(torch.tensor([0, 0, 1, 1]), share, seeded())] == [2, 2]
    with pytest.raises(VisaError, match="1 usable anomalous training images"):
        hold_out(torch.tensor([0, 0, 0, 1]), 0.2, seeded())


def test_every_batch_is_half_anomalous_and_a_class_is_used_up_before_it_repeats():
    labels = torch.tensor([0] * 9 + [1] * 3)
    batches = balanced_batches(labels, 6, 6, seeded())
    assert batches.shape == (6, 6)
    assert (labels[batches].sum(1) == 3).all()
    assert batches[labels[batches] == 1].bincount()[9:].tolist() == [6, 6, 6]
    assert batches[labels[batches] == 0].bincount().tolist() == [2] * 9
    assert sorted(batches[:3][labels[batches[:3]] == 0].tolist()) == list(range(9))


def test_augmentation_moves_the_mask_with_its_image():
    masks = data().masks[10:].float()
    images = masks[:, None].expand(-1, 3, -1, -1)
    moved, moved_masks = augment(images, masks, 0.2, 0.0, seeded())
    assert not moved_masks.equal(masks)
    assert ((moved[:, 0] > 0.5) == (moved_masks > 0.5)).float().mean() > 0.98
    assert set(moved_masks.unique().tolist()) <= {0, 1}
    flips = [masks, masks.flip(1), masks.flip(2), masks.flip(1, 2)]
    flipped = augment(images, masks, 0.0, 0.0, seeded())[1]
    found = {next(k for k, f in enumerate(flips) if f[i].equal(flipped[i])) for i in range(len(masks))}
    assert len(found) > 1, "each image is flipped in its own way"


def test_the_weights_of_the_lowest_held_out_loss_remain():
    """Training drives the logit up for ever; the images that judge want it at 0.03."""

    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Identity()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            return self.backbone(self.weight).expand(len(x))

    def loss(logits, masks):
        return -logits if torch.is_grad_enabled() else (logits - 0.03) ** 2

    model = One()
    settings = TwoClass(size=(32, 32), batch_size=4, epochs=1, min_steps=40, checks=40, judged_from=0, weight_decay=0)
    losses = list(fine_tune(model, loss, data(), settings).values())
    best = losses.index(min(losses))
    assert 0 < best == len(losses) - 1 - settings.patience, "training stopped when it got no better"
    assert (model.weight.item() - 0.03) ** 2 == pytest.approx(min(losses))
    late = fine_tune(One(), loss, data(), TwoClass(size=(32, 32), min_steps=40, checks=40, epochs=1, judged_from=0.9))
    assert min(late) >= 36


def test_images_that_judge_do_not_train():
    first = data()
    _, judge = hold_out(first.labels, 0.2, seeded())
    changed = first._replace(images=first.images.clone())
    changed.images[judge] = 255 - changed.images[judge]
    only_the_end = TwoClass(size=(32, 32), batch_size=4, epochs=1, min_steps=40, checks=1, precision="32-true")
    models = Linear(), Linear()
    losses = [fine_tune(m, squared, d, only_the_end) for m, d in zip(models, (first, changed), strict=True)]
    assert models[0].weight.equal(models[1].weight)
    assert losses[0] != losses[1]


def test_mistakes_are_told_in_one_sentence():
    with pytest.raises(VisaError, match="diverged"):
        fine_tune(Linear(), lambda logits, masks: logits * torch.nan, data(), TINY)
    with pytest.raises(VisaError, match="1 usable anomalous"):
        fine_tune(Linear(), squared, data(10, 1), TINY)
    for wrong, match in (
        ({"min_steps": 0}, "min_steps is 0"),
        ({"held_out": 1.0}, "held_out is 1.0"),
        ({"head_lr": float("nan")}, "head_lr is nan"),
        ({"size": (16, 64)}, "sides of 32"),
        ({"decoder_width": 12}, "decoder_width is 12"),
        ({"precision": "16"}, "unknown precision"),
    ):
        with pytest.raises(VisaError, match=match):
            TwoClass(**wrong)
