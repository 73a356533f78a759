"""The whole of it learns: new masks appear where they should, as bright as the template says."""

import pytest
import torch
import torch.nn.functional as F

from cardiosynth.autoencoder.codec import raw_statistics
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.core.random import generator, named_weights
from cardiosynth.data.loader import CaseCache
from cardiosynth.diffusion.control import Condition, ConditionSettings, palette
from cardiosynth.diffusion.denoiser import NetworkDenoiser
from cardiosynth.diffusion.dropout import ConditionDropout
from cardiosynth.diffusion.latents import Latents
from cardiosynth.diffusion.objective import Objective, ObjectiveSettings
from cardiosynth.diffusion.process import RectifiedFlow, times
from cardiosynth.diffusion.task import ControlTask
from cardiosynth.diffusion.unet import DenoiserSettings, TemplateUNet
from cardiosynth.sampling.guidance import Guidance, GuidedDenoiser, embedded_variants
from cardiosynth.sampling.solvers import ddim
from cardiosynth.training.loop import fit
from cardiosynth.training.settings import TrainingSettings

from .small import case


class ShrunkImages(Latents):
    """Latents that are the image itself, averaged over 4x4x4 blocks."""

    def __init__(self, cases):
        super().__init__([], cases.case_ids, raw_statistics(1))
        self.means = [F.avg_pool3d(cases.image(index) * 10 - 3, 4) for index in range(len(cases))]

    def __len__(self):
        return len(self.means)

    def block(self, index, where=()):
        mean = self.means[index][(slice(None), *where)]
        return mean, torch.zeros_like(mean)


@pytest.mark.slow
@pytest.mark.parametrize("inject", ["concatenate", "control"])
def test_a_trained_network_follows_mask_and_template(inject, tmp_path):
    cases = CaseCache([case(index) for index in range(8)], IntensityScale(), needs_masks=True)
    settings = ConditionSettings(inject=inject, features=8, stem_channels=(16,), template="same_acquisition")
    size = DenoiserSettings(channels=(16, 32), attention_levels=(False, True), num_head_channels=8, norm_num_groups=8)
    with named_weights(0, inject):
        module = TemplateUNet(1, 4, 3, size, settings, CARDIAC_CT)
    latents = ShrunkImages(cases)
    task = ControlTask(module, cases, latents, Objective(RectifiedFlow(), "x0", ObjectiveSettings()))
    training = TrainingSettings(steps=300, batch_size=4, learning_rate=3e-3, ema_decay=0, precision="fp32")
    fit(task, training, tmp_path, {})
    batch = task.batch([generator(1, "held out", index) for index in range(2)])
    condition = Condition(*(batch[name] for name in Condition._fields))
    process = RectifiedFlow()
    with torch.no_grad():
        denoiser = NetworkDenoiser(module.eval(), process, "x0")
        found = ddim(denoiser, process, times(5, "time", process), batch["noise"], module.embed(condition))
    error = (found - batch["x0"]).square().mean() / batch["x0"].var()
    assert error < 0.1, error


@pytest.mark.slow
def test_guidance_follows_template_and_mask_further(tmp_path):
    """The ventricle of a brighter template is drawn brighter still, and what the mask draws stands out more."""
    cases = CaseCache([case(index) for index in range(8)], IntensityScale(), needs_masks=True)
    settings = ConditionSettings(features=8, stem_channels=(16,), template="same_acquisition")
    size = DenoiserSettings(channels=(16, 32), attention_levels=(False, True), num_head_channels=8, norm_num_groups=8)
    with named_weights(0, "guided"):
        module = TemplateUNet(1, 4, 3, size, settings, CARDIAC_CT)
    objective, dropout = Objective(RectifiedFlow(), "x0", ObjectiveSettings()), ConditionDropout(0.2, 0.2)
    task = ControlTask(module, cases, ShrunkImages(cases), objective, dropout=dropout)
    training = TrainingSettings(steps=300, batch_size=4, learning_rate=3e-3, ema_decay=0, precision="fp32")
    fit(task, training, tmp_path, {})
    palettes = [palette(cases.image(i), cases.mask(i), CARDIAC_CT) for i in range(2)]
    reference = cases.mask(2)[None]
    inside = F.avg_pool3d((reference == 4).float(), 4) == 1
    noise, points = torch.randn(1, 1, 4, 4, 4, generator=generator(1, "noise")), times(5, "time", RectifiedFlow())

    @torch.no_grad()
    def drawn(template, guidance):
        given = Condition(reference, cases.mask(template)[None], cases.image(template)[None], palettes[template][None])
        told = embedded_variants(module.eval().embed, given, settings, guidance)
        denoiser = GuidedDenoiser(NetworkDenoiser(module, RectifiedFlow(), "x0"), guidance)
        return ddim(denoiser, RectifiedFlow(), points, noise, told)

    def excess(guidance):
        return float((drawn(1, guidance) - drawn(0, guidance))[inside].mean())

    def contrast(guidance):
        image = drawn(0, guidance)
        return float(image[inside].mean() - image[F.max_pool3d((reference > 0).float(), 4) == 0].mean())

    assert excess(Guidance(template=2.0)) > 1.3 * excess(Guidance()) > 0
    assert contrast(Guidance(mask=1.0)) > 1.1 * contrast(Guidance()) > 0
