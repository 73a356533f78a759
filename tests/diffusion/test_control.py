"""The condition: what each channel holds, and what may not enter."""

import pytest
import torch

from cardiosynth.autoencoder.folds import space_to_depth
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.random import generator
from cardiosynth.diffusion.control import (
    Condition,
    ConditionSettings,
    check_codes,
    num_channels,
    paint,
    palette,
    raw_condition,
    typical_intensities,
)

GRID = (8, 8, 8)


def condition(seed=0, batch=2, grid=GRID):
    rng = generator(seed, "condition")
    reference, template = (torch.randint(0, 18, (batch, 1, *grid), generator=rng).to(torch.uint8) for _ in range(2))
    image = torch.rand((batch, 1, *grid), generator=rng)
    palettes = torch.stack([palette(i, m, CARDIAC_CT) for i, m in zip(image, template, strict=True)])
    return Condition(reference, template, image, palettes)


def test_published_condition_has_17_channels_that_give_back_masks_and_image():
    given, settings = condition(), ConditionSettings(kind="template")
    raw = raw_condition(given, settings, CARDIAC_CT)
    assert raw.shape == (2, 17, *GRID)
    weights = 2.0 ** torch.arange(8).view(8, 1, 1, 1)
    reference = given.reference.clone()
    reference[reference > 8] = 0  # surroundings are not targets
    assert torch.equal((raw[:, :8] * weights).sum(1, keepdim=True), reference.float())
    assert torch.equal((raw[:, 8:16] * weights).sum(1, keepdim=True), given.template_mask.float())
    assert torch.equal(raw[:, 16:], given.template_image)


@pytest.mark.parametrize("encoding", ["bits", "one_hot", "scalar"])
@pytest.mark.parametrize("kind", ["mask", "template", "painted"])
def test_channel_counts_are_what_is_made(encoding, kind):
    settings = ConditionSettings(kind=kind, encoding=encoding)
    assert raw_condition(condition(), settings, CARDIAC_CT).shape[1] == num_channels(settings, CARDIAC_CT)
    expected = {"bits": (8, 17, 18), "one_hot": (8, 26, 27), "scalar": (1, 3, 4)}[encoding]
    assert num_channels(settings, CARDIAC_CT) == expected[("mask", "template", "painted").index(kind)]


def test_one_hot_and_scalar_name_the_code():
    given = condition()
    hot = raw_condition(given, ConditionSettings(kind="template", encoding="one_hot"), CARDIAC_CT)
    codes = torch.tensor(CARDIAC_CT.codes).view(-1, 1, 1, 1)
    assert torch.equal((hot[:, 8:25] * codes).sum(1, keepdim=True), given.template_mask.float())
    scalar = raw_condition(given, ConditionSettings(kind="template", encoding="scalar"), CARDIAC_CT)
    torch.testing.assert_close(scalar[:, 1:2] * 17, given.template_mask.float())


@pytest.mark.parametrize("encoding", ["bits", "one_hot", "scalar"])
def test_folding_the_volumes_is_folding_the_channels(encoding):
    given, settings = condition(), ConditionSettings(encoding=encoding)
    folded = Condition(*(space_to_depth(v, 4) for v in given[:3]), given.palette)
    channels = raw_condition(given, settings, CARDIAC_CT)
    assert torch.equal(raw_condition(folded, settings, CARDIAC_CT), space_to_depth(channels, 4))


def test_codes_beyond_8_bits_are_refused():
    with pytest.raises(InputError, match="codes up to 300"):
        check_codes(torch.tensor([300], dtype=torch.int16))


def test_palette_is_the_mean_per_structure_and_the_shell_between():
    image, mask = torch.full((1, 12, 12, 12), 0.1), torch.zeros(1, 12, 12, 12, dtype=torch.uint8)
    mask[:, 4:8, 4:8, 4:8], image[:, 4:8, 4:8, 4:8] = 4, 0.6
    image[:, 2:10, 2:10, 2:10] = torch.where(mask[:, 2:10, 2:10, 2:10] > 0, 0.6, 0.3)
    found = palette(image, mask, CARDIAC_CT)
    assert found[4] == pytest.approx(0.6)
    assert found[0] == pytest.approx(0.3)  # two voxels around the heart
    assert found[1] == pytest.approx(0.6)  # a coronary that the template lacks takes the mean of its targets


def test_painted_channel_is_the_template_moved_to_the_reference():
    template = torch.zeros(1, 1, 12, 12, 12, dtype=torch.uint8)
    reference = template.clone()
    template[..., 3:6], reference[..., 7:10] = 5, 5
    image = torch.where(template > 0, 0.7, 0.2)
    painted = paint(Condition(reference, template, image, palette(image[0], template[0], CARDIAC_CT)[None]), CARDIAC_CT)
    torch.testing.assert_close(painted, torch.where(reference > 0, 0.7, 0.2))


def test_intensities_of_a_condition_are_centered_and_spread():
    plain = raw_condition(condition(), ConditionSettings(), CARDIAC_CT)
    spread = raw_condition(condition(), ConditionSettings(intensity_center=0.4, intensity_gain=8.0), CARDIAC_CT)
    assert torch.equal(spread[:, :16], plain[:, :16]), "masks stay as they are"
    torch.testing.assert_close(spread[:, 16:], (plain[:, 16:] - 0.4) * 8)


def test_a_structure_the_template_lacks_takes_its_typical_intensity():
    mask = torch.zeros(1, 6, 6, 6, dtype=torch.uint8)
    mask[:, :3] = 4
    image = torch.where(mask > 0, 0.5, 0.1)
    typical = {"left_ventricle": 0.9, "right_ventricle": 0.3}
    found = palette(image, mask, CARDIAC_CT, typical)
    assert found[4] == pytest.approx(0.5), "what the template shows goes before what is typical"
    assert found[6] == pytest.approx(0.3)
    assert found[3] == pytest.approx(0.5), "nothing typical is known: the mean of the template's targets"


def test_typical_intensities_are_means_over_the_cases_that_have_the_structure():
    first, second = torch.zeros(256), torch.zeros(256)
    first[4], second[4], second[6] = 0.2, 0.4, 0.7
    masks = [torch.tensor([[4, 0]], dtype=torch.uint8), torch.tensor([[4, 6]], dtype=torch.uint8)]
    found = typical_intensities([first, second], masks, CARDIAC_CT)
    assert found == {"left_ventricle": pytest.approx(0.3), "right_ventricle": pytest.approx(0.7)}


def test_palette_without_any_target_is_finite():
    image = torch.full((1, 4, 4, 4), 0.25)
    found = palette(image, torch.zeros(1, 4, 4, 4, dtype=torch.uint8), CARDIAC_CT)
    torch.testing.assert_close(found, torch.full((256,), 0.25))


def test_slices_work_like_volumes():
    given = condition(grid=(8, 8))
    assert raw_condition(given, ConditionSettings(), CARDIAC_CT).shape == (2, 18, 8, 8)
