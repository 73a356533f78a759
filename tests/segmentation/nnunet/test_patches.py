"""Maps of patches: read where they were cut, and sampled as nnU-Net samples what lies beside them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cardiosynth.segmentation.losses import ConfidenceWeights
from cardiosynth.segmentation.nnunet.sidecar import LEVELS

pytest.importorskip("nnunetv2", reason="needs the extra nnunet: pip install 'cardiosynth[nnunet]'")

from cardiosynth.segmentation.nnunet.patches import CaseMap, NotedImage, PatchMap, Place, sampled

LEVELS_OF_CASE = np.random.default_rng(0).integers(0, 255, (1, 7, 8, 9)).astype(np.uint8)


def turned(shape: tuple[int, ...], wave: float = 0.0) -> Tensor:
    """Return places on a grid of ``shape`` that is turned, shrunk and, with a ``wave``, bent."""
    matrix = torch.linalg.qr(torch.randn(len(shape), len(shape), generator=torch.Generator().manual_seed(1)))[0] * 0.7
    even = torch.stack(torch.meshgrid(*(torch.linspace(-1, 1, n) for n in shape), indexing="ij"), -1) @ matrix
    return even + wave * torch.sin(5 * even)


@pytest.mark.parametrize("wave", [0.0, 0.1])
def test_levels_are_those_of_the_nearest_voxel(wave: float):
    levels = torch.from_numpy(LEVELS_OF_CASE)
    places = turned((5, 6, 7), wave)
    oracle = F.grid_sample(levels[None].float(), places[None], mode="nearest", align_corners=False)[0]
    inside = places.abs().amax(-1) < 1
    found = sampled(levels, places, keeps_out=False, bent=wave > 0)
    assert inside.float().mean() > 0.5
    assert torch.equal(found[:, inside].float(), oracle[:, inside])


def test_what_is_interpolated_with_the_least_of_a_voxel_without_confidence_has_none():
    rng = torch.Generator().manual_seed(0)
    nothing = torch.rand((1, 9, 9, 9), generator=rng) < 0.01
    levels = torch.where(nothing, LEVELS, 100).to(torch.uint8)
    places = turned((12, 12, 12))
    share = F.grid_sample(nothing[None].float(), places[None], align_corners=False)[0]
    found = sampled(levels, places, keeps_out=True)
    assert 0.03 < (share > 0).float().mean() < 0.5
    assert (found[share > 0] == LEVELS).all()
    assert (found[share == 0] == 100).any()
    assert (sampled(levels, places, keeps_out=False)[share > 0] == 100).any(), "a floor lets them count"


@pytest.mark.parametrize("flat", [False, True])
def test_a_part_of_a_patch_is_that_part_of_the_filled_up_map(flat: bool):
    window = (slice(2, 3) if flat else slice(0, 5), slice(3, 8), slice(0, 9))
    padding = [(0, 0) if flat else (3, 0), (0, 4), (2, 1)]
    source = CaseMap(LEVELS_OF_CASE, ConfidenceWeights())
    patch = PatchMap(source, window, padding, flat)
    whole = np.pad(LEVELS_OF_CASE[(slice(None), *window)], [(0, 0), *padding])
    whole = whole[:, 0] if flat else whole
    assert patch.shape == whole.shape
    for part in ((0, 2), (1, 4), (2, 7), (6, 9), (0, 99)):
        asked = (slice(None), *(slice(*part),) * (whole.ndim - 1))
        np.testing.assert_array_equal(patch[asked].numpy(), whole[asked])


def test_a_patch_is_where_it_was_cut_and_another_way_of_filling_up_is_noticed():
    place = Place(map=CaseMap(LEVELS_OF_CASE, ConfidenceWeights()))
    image = LEVELS_OF_CASE.astype(np.float32)
    cut = NotedImage(image, place)[slice(None), slice(1, 4), slice(0, 8), slice(2, 9)]
    filled = np.pad(cut, pad_width=[(0, 0), (0, 2), (1, 0), (0, 0)], mode="constant", constant_values=0)
    levels = place.patch(filled.shape[1:])
    np.testing.assert_array_equal(levels[(slice(None),) * 4].numpy(), filled)
    with pytest.raises(AssertionError, match="fills up patches in another way"):
        place.patch((4, 9, 7))
