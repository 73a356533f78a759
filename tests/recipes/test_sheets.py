"""Sheets are drawn by the recipe's sampler with the networks as they are in the middle of training."""

import numpy as np
from diffusion import test_label_stage as slices
from diffusion.small import AUTOENCODER, CONTROL, DENOISER, DIFFUSION, dataset

from cardiosynth.autoencoder.task import train_autoencoder
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.data.dataset import write_dataset
from cardiosynth.data.splits import hold_out
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


def test_a_first_stage_that_is_told_of_masks_draws_held_out_cases_for_their_own(tmp_path):
    cases, run, made = write_dataset([slices.cut(index) for index in range(4)], tmp_path / "data"), tmp_path / "run", []
    sampler = sheet_sampler(SAMPLER.model_copy(update={"guidance_template": 0.0, "start": "image", "strength": 0.5}))

    def draw(trainee, template, reference):
        made.append((template, reference, sampler(trainee, template, reference)))
        return made[-1][-1]

    train_autoencoder(cases, run, slices.AUTOENCODER, slices.SCALE)
    watch = WatchSettings(cases=1, sheet_every=2, sheet_cases=1)
    train_diffusion(cases, run, slices.STAGE.model_copy(update={"watch": watch}), draw=draw)
    ((template, reference, case),) = made
    assert template is reference
    assert reference.case_id in hold_out(cases.case_ids, watch.cases)
    assert "source_image" not in case.provenance, "sheets start from noise, whatever the recipe says"
    assert (run / "diffusion" / "samples" / "step-0000002.png").exists()
