import pytest
import torch

from cardiosynth.autoencoder.losses import (
    Perceptual,
    ReconstructionSettings,
    adaptive_weight,
    reconstruction_loss,
    thin_codes,
    voxel_weight,
    weighted_regions,
)
from cardiosynth.core.labels import CARDIAC_CT, label_table


def test_a_perfect_reconstruction_costs_nothing():
    x = torch.rand(1, 1, 4, 4, 4)
    parts = reconstruction_loss(x, x, torch.ones_like(x), ReconstructionSettings())
    assert float(parts["total"]) == 0


def test_the_total_is_the_weighted_sum_of_closed_forms():
    image, weight = torch.zeros(1, 1, 4, 4, 4), torch.full((1, 1, 4, 4, 4), 2.0)
    settings = ReconstructionSettings(l1=1.0, l2=3.0, perceptual=10.0)
    largest = Perceptual(lambda a, b: (a - b).amax(), "largest")
    parts = reconstruction_loss(image + 0.5, image, weight, settings, largest)
    assert float(parts["l1"]) == pytest.approx(1.0)
    assert float(parts["l2"]) == pytest.approx(0.5)
    assert float(parts["total"]) == pytest.approx(1.0 + 3 * 0.5 + 10 * 0.5)


def test_the_adaptive_weight_makes_both_gradients_alike():
    last, other = torch.tensor([3.0, 4.0], requires_grad=True), torch.tensor(2.0, requires_grad=True)
    reconstruction, adversarial = (last * torch.tensor([6.0, 8.0])).sum() + other**2, 0.5 * last[0] * other
    weight = adaptive_weight(reconstruction, adversarial, last)
    assert float(weight) == pytest.approx(10 / (1 + 1e-4)), "norm (6, 8) over norm (0.5 * 2, 0)"
    assert not weight.requires_grad
    (reconstruction + weight * adversarial).backward()
    assert last.grad is not None, "both losses can still be descended"


def test_the_adaptive_weight_stays_finite():
    last = torch.tensor([5.0], requires_grad=True)
    assert float(adaptive_weight(3 * last.sum(), 0 * last.sum(), last)) == 1e4
    assert float(adaptive_weight(0 * last.sum(), 3 * last.sum(), last)) == 0


def test_heart_and_thin_structures_and_the_voxels_next_to_them_count_more():
    mask = torch.zeros(1, 1, 9, 9, 9, dtype=torch.uint8)
    mask[..., 1, 4, 4] = CARDIAC_CT.named("left_ventricle").code
    mask[..., 7, 4, 4] = CARDIAC_CT.named("coronary_artery").code
    mask[..., 4, 1, 1] = CARDIAC_CT.named("spine").code
    settings = ReconstructionSettings(heart=3.0, thin_weight=15.0)
    weight = voxel_weight(weighted_regions(mask, CARDIAC_CT, settings), settings)
    assert weight[0, 0, 1, 4, 4] == weight[0, 0, 0, 3, 5] == 4
    assert weight[0, 0, 7, 4, 4] == weight[0, 0, 8, 5, 3] == 19
    assert weight[0, 0, 4, 1, 1] == weight[0, 0, 4, 4, 4] == 1
    assert int((weight > 1).sum()) == 2 * 27


def test_names_that_the_table_lacks_are_passed_over():
    labels = label_table({"RV": 1, "myocardium": 2})
    settings = ReconstructionSettings(thin=("coronary_artery", "Myocardium"))
    assert thin_codes(labels, settings) == (2,)
