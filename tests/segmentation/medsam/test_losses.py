import torch
from monai.losses.dice import DiceLoss

from cardiosynth.core.random import generator
from cardiosynth.segmentation.medsam.losses import medsam_parts


def example(index: int = 0):
    rng = generator(index, "medsam")
    logits = torch.randn(2, 1, 12, 9, generator=rng).requires_grad_()
    return logits, torch.randint(0, 2, (2, 1, 12, 9), generator=rng).float()


def cal(logits, target, confidence):
    parts = medsam_parts(logits, target, confidence)
    return parts["dice"] + parts["cross_entropy"]


def gradient(loss, logits):
    return torch.autograd.grad(loss, logits)[0]


def test_confidence_one_is_medsams_loss_and_gradient():
    logits, target = example()
    plain = DiceLoss(sigmoid=True, squared_pred=True)(logits, target) + torch.nn.BCEWithLogitsLoss()(logits, target)
    loss = cal(logits, target, torch.ones_like(target))
    torch.testing.assert_close(loss, plain, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient(loss, logits), gradient(plain, logits), rtol=1e-5, atol=1e-9)


def test_confidence_zero_lets_nothing_through():
    logits, target = example()
    loss = cal(logits, target, torch.zeros_like(target))
    assert loss == 0
    assert gradient(loss, logits).abs().max() == 0


def test_where_confidence_is_zero_the_label_does_not_matter():
    logits, target = example()
    confidence = torch.rand(target.shape, generator=generator(0, "confidence"))
    confidence[..., :4] = 0
    scrambled = target.clone()
    scrambled[..., :4] = 1 - target[..., :4]
    here, there = (gradient(cal(logits, truth, confidence), logits) for truth in (target, scrambled))
    assert torch.equal(here, there)
    assert here[..., :4].abs().max() == 0
    assert here[..., 4:].abs().min() > 0
