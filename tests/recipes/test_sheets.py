"""Sheets are drawn by the recipe's sampler with the networks as they are in the middle of training."""

import numpy as np
from diffusion.small import AUTOENCODER, CONTROL, DENOISER, DIFFUSION, dataset

from cardiosynth.autoencoder.task import train_autoencoder
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.diffusion.stages import train_control, train_diffusion
from cardiosynth.recipes.sheets import sheet_sampler
from cardiosynth.sampling.sampler import SamplerSettings
from cardiosynth.training.watch import WatchSettings

SAMPLER = SamplerSettings(solver="euler", steps=3, guidance_template=2.0, precision="fp32")
WATCH = {"watch": WatchSettings(sheet_every=1, sheet_cases=1)}


def test_both_stages_draw_what_they_have_learned_so_far(tmp_path):
    cases, run, made = dataset(tmp_path / "data"), tmp_path / "run", []
    sampler = sheet_sampler(SAMPLER)

    def draw(trainee, template, reference):
        made.append((trainee, template, reference, sampler(trainee, template, reference)))
        assert np.array_equal(sampler(trainee, template, reference).image, made[-1][-1].image)
        return made[-1][-1]

    train_autoencoder(cases, run, AUTOENCODER, IntensityScale())
    first = {**WATCH, "denoiser": DENOISER.model_copy(update={"spacing_input": True})}
    train_diffusion(cases, run, DIFFUSION.model_copy(update=first), draw=draw)
    train_control(cases, run, CONTROL.model_copy(update=WATCH), draw=draw)
    for _, template, reference, case in made:
        assert case.origin == "synthetic"
        assert case.grid.same_as(template.grid)
        assert case.confidence is None
        if reference is not None:
            assert np.array_equal(case.mask, reference.labels.only_targets(reference.mask))
    assert [reference is None for _, _, reference, _ in made] == [True, True, False, False]
    one, two = (case.image for _, _, reference, case in made if reference is not None)
    assert not np.array_equal(one, two)  # the same noise, another step
