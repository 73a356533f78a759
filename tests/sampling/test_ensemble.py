"""Ensembles: their dispersion is that of the images for the seeds."""

import numpy as np
from diffusion.small import case

from cardiosynth.sampling.ensemble import ensemble_dispersion


def test_the_dispersion_is_that_of_the_images_for_the_seeds():
    seen = []

    def generate(mask, template, seed):
        seen.append((mask.case_id, template.case_id, seed))
        return template.with_(image=np.full_like(template.image, seed))

    found = ensemble_dispersion(generate, case(0), case(1), [10, 20, 60])
    np.testing.assert_allclose(found.std(), np.std([10, 20, 60], ddof=1), rtol=1e-6)
    np.testing.assert_allclose(found.mean(), 30, rtol=1e-6)
    assert seen == [("small-0", "small-1", seed) for seed in (10, 20, 60)]
