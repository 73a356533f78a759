"""Ensembles: their dispersion is that of the images, and masks move as they are told."""

import numpy as np
from diffusion.small import case

from cardiosynth.core.random import numpy_generator
from cardiosynth.sampling.ensemble import ensemble_dispersion, moved_mask

MASK = numpy_generator(0, "mask").integers(0, 9, (1, 5, 6, 7), dtype=np.uint8)


def test_masks_move_along_every_axis_forth_and_back_and_forth_again():
    inner = (0, slice(1, -1), slice(1, -1), slice(1, -1))
    for number in range(8):
        axis, step = 1 + number % 3, -1 if number // 3 == 1 else 1
        np.testing.assert_array_equal(moved_mask(MASK, 1, number)[inner], np.roll(MASK, step, axis)[inner])
    np.testing.assert_array_equal(moved_mask(MASK, 0, 5), MASK)


def test_the_border_is_repeated_where_the_mask_moved_away():
    np.testing.assert_array_equal(moved_mask(MASK, 2, 0)[:, :3], np.repeat(MASK[:, :1], 3, axis=1))
    np.testing.assert_array_equal(moved_mask(MASK[..., 0], 1, 3)[:, :, -1], MASK[:, :, -1, 0])


def test_the_dispersion_is_that_of_the_images_for_the_seeds_and_moved_masks():
    seen = []

    def generate(mask, template, seed):
        seen.append((mask.mask, template.case_id, seed))
        return template.with_(image=np.full_like(template.image, seed))

    found = ensemble_dispersion(generate, case(0), case(1), [10, 20, 60], mask_shift=1)
    np.testing.assert_allclose(found.std(), np.std([10, 20, 60], ddof=1), rtol=1e-6)
    assert [(name, seed) for _, name, seed in seen] == [("small-1", seed) for seed in (10, 20, 60)]
    for number, (mask, _, _) in enumerate(seen):
        np.testing.assert_array_equal(mask, moved_mask(case(0).mask, 1, number))
