"""The Generator contract, and latent diffusion behind it: a mask and a template in, an annotated synthetic Case out.

FCaS and FQCDM differ in what their networks are told, not in how they are used: FCaS's is told of mask and template,
FQCDM's of the mask, and its codec quantizes what it decodes. Which one a run holds, its checkpoints tell.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from cardiosynth.autoencoder.task import AutoencoderStage, train_autoencoder
from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings, parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale, Window, rounded_image
from cardiosynth.core.random import generator, named_seed
from cardiosynth.core.store import read_json
from cardiosynth.data.dataset import Dataset
from cardiosynth.diffusion.codes import lacks_body, told_mask
from cardiosynth.diffusion.control import Condition, mask_alone, palette
from cardiosynth.diffusion.denoiser import Denoiser, NetworkDenoiser
from cardiosynth.diffusion.stages import ControlStage, DiffusionStage, train_control, train_diffusion
from cardiosynth.diffusion.unet import Acquisition, chest_ct
from cardiosynth.sampling.confidence import Again, Decode, SkipSamplingVariance, confidence_map, moved_mask
from cardiosynth.sampling.ensemble import ensemble_dispersion
from cardiosynth.sampling.fitting import check_own_mask, check_same_grid, fitted, missing_targets
from cardiosynth.sampling.guidance import GuidedDenoiser, Variants, embedded_variants
from cardiosynth.sampling.model import LatentDiffusionModel, load_model
from cardiosynth.sampling.sampler import SamplerSettings, draw_latent
from cardiosynth.sampling.stitching import StitchedDenoiser, Structures, embedded_structures
from cardiosynth.training.settings import uses_bfloat16

Told = Variants | Structures | None
"""What a denoiser is told, embedded."""


@runtime_checkable
class Generator(Protocol):
    """What FCaS and every method compared with it answers to."""

    def fit(self, cases: Dataset, run: Path) -> None:
        """Learn from annotated cases; checkpoints go to ``run``. Called again after a stop, it goes on."""
        ...

    def generate(self, mask: Case, template: Case, seed: int) -> Case:
        """Return a synthetic case that shows ``mask``, in the manner of ``template``.

        A generator that is told of no mask returns a case without one.
        """
        ...


class LatentDiffusionStages(Settings):
    """What is trained: the stages, without ``control`` where the diffusion is told of masks, and their intensities."""

    intensity: IntensityScale = IntensityScale()
    autoencoder: AutoencoderStage = AutoencoderStage()
    diffusion: DiffusionStage = DiffusionStage()
    control: ControlStage | None = ControlStage()


class LatentDiffusionGenerator:
    """FCaS's generator, FQCDM's and those of diffusion peers, with a confidence map.

    The denoiser is told of mask and template, of the mask, or of nothing; latents are those of any codec, voxels among
    them.

    Args:
        stages: how ``fit`` trains.
        sampler: how latents are drawn.
        device: cpu or cuda.
        model: the trained networks; without them ``fit`` comes first.
    """

    def __init__(
        self,
        stages: LatentDiffusionStages,
        sampler: SamplerSettings,
        device: str = "cpu",
        model: LatentDiffusionModel | None = None,
    ):
        self.stages, self.sampler, self.device = stages, sampler, device
        self._model = model

    @property
    def model(self) -> LatentDiffusionModel:
        """The trained networks.

        Raises:
            InputError: there are none yet.
        """
        if self._model is None:
            raise InputError("this generator is not trained; call fit(cases, run), or load_generator(run).")
        return self._model

    def fit(self, cases: Dataset, run: Path) -> None:
        """Train the stages on ``cases``, as far as ``run`` does not hold them, and load them.

        Raises:
            InputError: too few cases, cases that do not suit, or a run begun otherwise.
        """
        train_autoencoder(cases.with_images(), run, self.stages.autoencoder, self.stages.intensity, device=self.device)
        train_diffusion(cases, run, self.stages.diffusion, device=self.device)
        if self.stages.control is not None:
            train_control(cases, run, self.stages.control, device=self.device)
        untold = self.stages.control is None and self.stages.diffusion.condition is None
        self._model = load_model(run, self.device, untold=untold)

    def generate(self, mask: Case, template: Case, seed: int) -> Case:
        """Return a synthetic case for a reference mask and a template pair.

        The noise is a function of ``seed`` and the mask's name alone, so a case is the same bits in any order.

        Args:
            mask: holds the reference mask; its surroundings are left out, they come from the template.
            template: image and mask, in the model's unit. A network that is told of masks alone takes nothing from it
                but the window of its intensities, and the image where the sampler starts from one.
            seed: the run's seed.

        Returns:
            Image in the template's unit (HU as int16, MR as float32), the targets of the mask (none where the network
            is told nothing), confidence, and what made it. Affine and labels are the mask's. Structures are matched by
            name; those of the template that the model does not know become background (``left_out`` in the
            provenance); those of the mask that the template lacks are drawn at the intensity they had in training on
            average (``not_in_template``). A body that the template's mask lacks is found in its image where the model
            must be told (``body_added``).

        Raises:
            InputError: a mask or image is missing, of another voxel size or unit than the model was trained with, or on
                a grid that the networks cannot take; mask and template differ in their grids; the mask holds a target
                structure that the model does not know; guidance needs a dropout that the model was not trained with;
                the mask of a reconstruction is not its image's; or the memory for decoding is too small.
        """
        self._check_sampler()
        reference, pair, left_out = fitted(self.model, mask, template, self._is_told)
        check_same_grid(mask, template)
        window = self.model.codec.window_of(template)
        rng = generator(seed, "sampling", mask.case_id)
        image, ssv = self._image(reference, pair, window, rng)
        confidence, facts = self._confidence(ssv, image, mask, template, seed)
        known = self._known(reference, pair, left_out)
        return Case(
            case_id=f"synthetic-{mask.case_id}",
            image=rounded_image(image) if template.intensity_unit == "hu" else image.astype(np.float32),
            affine=mask.affine,
            mask=mask.labels.only_targets(mask.required_mask()) if self._is_told else None,
            confidence=confidence,
            labels=mask.labels,
            intensity_unit=template.intensity_unit,
            spacing_known=mask.spacing_known,
            origin="synthetic",
            provenance=self._provenance(mask, template, seed, facts)
            | {key: names for key, names in known.items() if names},
        )

    def _image(
        self, reference: Case, template: Case, window: Window, rng: torch.Generator
    ) -> tuple[np.ndarray, SkipSamplingVariance | None]:
        """Return the image and what watched it being sampled."""
        decode = self._decoder(reference, window)
        if self.sampler.start == "reconstruction":
            if self._is_told:
                check_own_mask(reference, template)
            return decode(self._encoded(template)[0], None), None
        condition = self._condition(reference, template, window)
        denoiser = self._denoiser(self._acquisition(reference))
        ssv = self._watcher(decode, self._again(denoiser, condition))
        encoded = self._encoded(template) if self.sampler.start == "image" else None
        told = self._told(condition)
        latent = self._latent(denoiser, told, reference.grid.shape, rng=rng, ssv=ssv, encoded=encoded)
        return decode(latent[0], None), ssv

    def _known(self, reference: Case, template: Case, left_out: list[str]) -> dict[str, Any]:
        """Return what of the template the network could not be told."""
        settings = self.model.network.condition
        if settings is None or settings.kind == "mask":
            return {}
        return {
            "left_out": left_out,
            "not_in_template": missing_targets(self.model, template, reference),
            "body_added": settings.codes == "maisi" and lacks_body(template),
        }

    def _condition(self, mask: Case, template: Case, window: Window) -> Condition | None:
        settings = self.model.network.condition
        if settings is None:
            return None
        if settings.kind == "mask":
            reference = torch.from_numpy(np.ascontiguousarray(mask.required_mask()))
            return mask_alone(reference[None].to(self.model.codec.device))
        image = torch.from_numpy(window.to_model(template.required_image().astype(np.float32)))
        codes = torch.from_numpy(np.ascontiguousarray(template.required_mask()))
        reference = torch.from_numpy(np.ascontiguousarray(mask.required_mask()))
        table = palette(image, codes, self.model.labels, self.model.record["typical_intensities"])
        device = self.model.codec.device
        told = torch.from_numpy(told_mask(template, settings.codes))
        return Condition(*(v[None].to(device) for v in (reference, told, image, table)))

    def _encoded(self, source: Case) -> Tensor:
        mean, _ = self.model.codec.encode_case(source)
        return mean[None].to(self.model.codec.device)

    @torch.no_grad()
    def _latent(
        self,
        denoiser: Denoiser,
        told: Told,
        grid: tuple[int, ...],
        *,
        rng: torch.Generator,
        ssv: SkipSamplingVariance | None,
        encoded: Tensor | None,
    ) -> Tensor:
        model = self.model
        shape = (1, model.codec.latent_channels, *model.codec.latent_shape(grid))
        noise = torch.randn(shape, generator=rng).to(model.codec.device)
        return draw_latent(self.sampler, denoiser, model.process, noise, told, rng=rng, callback=ssv, encoded=encoded)

    def _denoiser(self, acquisition: Acquisition | None) -> Denoiser:
        model, sampler = self.model, self.sampler

        def predict(x: Tensor, t: Tensor, embedding: Tensor | None) -> Tensor:
            with self._autocast():
                return model.network(x, t, embedding, _expanded(acquisition, len(x)))

        clamp = model.codec.within_images if sampler.clamp == "image" else sampler.clamp
        plain, settings = (
            NetworkDenoiser(predict, model.process, model.first.prediction, clamp),
            model.network.condition,
        )
        if settings is None:
            return plain
        if settings.classes is not None:
            return StitchedDenoiser(plain, sampler.guidance.mask, stacked=sampler.guidance_stacked, clamp=clamp)
        return GuidedDenoiser(plain, sampler.guidance, stacked=sampler.guidance_stacked, clamp=clamp)

    @torch.no_grad()
    def _told(self, condition: Condition | None) -> Told:
        model, settings = self.model, self.model.network.condition
        if condition is None or settings is None:
            return None
        with self._autocast():
            if settings.classes is not None:
                codes = settings.told_codes(model.labels)
                return embedded_structures(model.network.embed, condition, codes, model.codec.compression)
            return embedded_variants(model.network.embed, condition, settings, self.sampler.guidance)

    @property
    def _is_told(self) -> bool:
        return self.model.network.condition is not None

    def _acquisition(self, case: Case) -> Acquisition | None:
        if not self.model.network.needs_acquisition:
            return None
        if case.spacing_mm is None:
            raise InputError(
                f"case {case.case_id}: its voxel size is not known and this model must be told; run cardiosynth "
                "prepare with --spacing-mm first."
            )
        return chest_ct(torch.tensor([case.spacing_mm], dtype=torch.float32, device=self.model.codec.device))

    def _decoder(self, reference: Case, window: Window) -> Decode:
        """Return what decodes; where the decoder is told of masks, the reference goes with it, moved where it was."""
        mask = self.model.codec.mask_of(reference) if self._is_told else None

        def decode(latent: Tensor, number: int | None) -> np.ndarray:
            shown = mask if mask is None or number is None else self._moved(mask, number)
            with self._autocast():
                return self.model.codec.decode(latent, window, self.sampler.decode_budget_gb, shown)

        return decode

    def _moved(self, mask: UInt8[np.ndarray, "1 *grid"], number: int) -> UInt8[np.ndarray, "1 *grid"]:
        assert self.sampler.confidence is not None, "masks are moved for a confidence map"
        return moved_mask(mask, self.sampler.confidence.mask_shift, number)

    def _autocast(self):
        device = self.model.codec.device
        return torch.autocast(device.type, torch.bfloat16, enabled=uses_bfloat16(self.sampler.precision, device))

    def _watcher(self, decode: Decode, again: Again) -> SkipSamplingVariance | None:
        settings = self.sampler.confidence
        if settings is None or settings.kind == "ensemble":
            return None
        return SkipSamplingVariance(settings, self.sampler.steps, decode, again)

    def _again(self, denoiser: Denoiser, condition: Condition | None) -> Again:
        """Return what predicts x0 for moved masks; each is embedded when it is needed and not kept."""

        def predict(x: Tensor, t: Tensor, number: int) -> Tensor:
            assert condition is not None, "there is no mask to move"
            moved = self._moved(condition.reference[0].cpu().numpy(), number)
            reference = torch.from_numpy(moved)[None].to(condition.reference)
            return denoiser(x, t.to(x), self._told(condition._replace(reference=reference)))

        return predict

    def _confidence(
        self, ssv: SkipSamplingVariance | None, image: np.ndarray, mask: Case, template: Case, seed: int
    ) -> tuple[np.ndarray | None, dict[str, Any] | None]:
        """Return the confidence map and its facts, where one is wanted."""
        settings = self.sampler.confidence
        if settings is None or self.sampler.start == "reconstruction":
            return None, None
        if ssv is not None:
            return ssv.confidence(image.shape[1:])
        changes = {"confidence": None, "steps": settings.member_steps or self.sampler.steps}
        plain = LatentDiffusionGenerator(self.stages, self.sampler.model_copy(update=changes), self.device, self._model)
        seeds = [named_seed(seed, "confidence", number) for number in range(1, settings.members)]
        others = ensemble_dispersion(plain.generate, mask, template, seeds)
        others.add(image)
        return confidence_map(others, settings, image.shape[1:])

    def _provenance(self, mask: Case, template: Case, seed: int, facts: Mapping[str, Any] | None) -> dict[str, Any]:
        kept = {key: mask.provenance[key] for key in ("mask",) if self._is_told and key in mask.provenance}
        kept |= {key: template.provenance[key] for key in ("acquisition",) if key in template.provenance}
        parents = list(mask.provenance.get("parents", [mask.case_id])) if self._is_told else []
        source: dict[str, Any] = {} if self._is_told else {"conditional": False}
        if self.sampler.start != "noise":
            # Whoever looks for copies, or divides cases by patient, must find whose image this began as.
            parents += [template.case_id] if template.case_id not in parents else []
            source["source_image"] = template.case_id
        licences = {str(c.provenance["licence"]) for c in (mask, template) if "licence" in c.provenance}
        return {
            "parents": parents,
            **source,
            **({"reference": mask.case_id} if self._is_told else {}),
            "template": template.case_id,
            "seed": seed,
            "sampler": self.sampler.provenance(),
            "checkpoints": self.model.fingerprints,
            **({"packed_from": self.model.packed_from} if self.model.packed_from else {}),
            "confidence": dict(facts) if facts is not None else None,
            "licence": "; ".join(sorted(licences | set(self.model.record["licences"]))) or "unknown",
            **kept,
        }

    def _check_sampler(self) -> None:
        if not self._is_told and self.sampler.confidence is not None and self.sampler.confidence.mask_shift:
            raise InputError("this model is told of no mask that could be moved; set sampler.confidence.mask_shift=0.")
        for name, weight in self.sampler.guidance._asdict().items():
            if weight and not self.model.dropout[name]:
                raise InputError(
                    f"sampler.guidance_{name} is {weight:g} and this model never saw a case without its {name}; train "
                    f"the control stage with --set control.drop_{name}=0.1, or set sampler.guidance_{name}=0."
                )


def _expanded(acquisition: Acquisition | None, batch: int) -> Acquisition | None:
    """Return the acquisition of one case for a batch of its variants."""
    if acquisition is None:
        return None
    return Acquisition(*(value.expand(batch, *value.shape[1:]) for value in acquisition))


def load_generator(
    run: Path, device: str = "cpu", sampler: SamplerSettings | None = None, autoencoder: Path | None = None
) -> LatentDiffusionGenerator:
    """Load the generator of a run from its checkpoints.

    Args:
        run: the model's folder, with ``autoencoder/`` and ``control/``, or a ``diffusion/`` that is told of masks.
        device: cpu or cuda.
        sampler: how latents are drawn; by default as the run's recipe says.
        autoencoder: run whose autoencoder is used, where not this one.

    Raises:
        InputError: a stage is missing, damaged, or belongs to another autoencoder.
    """
    run = Path(run)
    model = load_model(run, device, autoencoder)
    return LatentDiffusionGenerator(recorded_stages(model), sampler or recorded_sampler(run), device, model)


def recorded_stages(model: LatentDiffusionModel) -> LatentDiffusionStages:
    """Return the settings that the networks were trained with, from their records."""
    return LatentDiffusionStages(
        intensity=model.codec.scale,
        autoencoder=parse_settings(AutoencoderStage, model.codec.record["settings"], "the autoencoder's record"),
        diffusion=model.first,
        control=model.control,
    )


def recorded_sampler(run: Path) -> SamplerSettings:
    """Return the sampler of the run's ``recipe.json``, or the default one where the run has no recipe."""
    recipe = run / "recipe.json"
    given = read_json(recipe).get("sampler") if recipe.exists() else None
    return SamplerSettings() if given is None else parse_settings(SamplerSettings, given, str(recipe))
