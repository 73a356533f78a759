"""Several samples of one case: how much they differ is the expensive reference for every cheaper confidence map."""

from collections.abc import Callable, Sequence

import numpy as np

from cardiosynth.core.case import Case
from cardiosynth.sampling.confidence import Dispersion

Generate = Callable[[Case, Case, int], Case]
"""(mask, template, seed) -> synthetic case: any generator's ``generate``."""


def ensemble_dispersion(generate: Generate, mask: Case, template: Case, seeds: Sequence[int]) -> Dispersion:
    """Return mean and variance over the images that ``generate`` makes of one mask and one template.

    Args:
        generate: of any method, e.g. ``load_generator(run).generate``.
        mask: the reference mask.
        template: image and mask.
        seeds: one per sample.
    """
    dispersion = Dispersion()
    for seed in seeds:
        dispersion.add(generate(mask, template, seed).required_image().astype(np.float32))
    return dispersion
