"""Training of an autoencoder: crops, often around thin structures, from images with or without masks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import torch
from torch import Tensor, nn

from cardiosynth import __version__
from cardiosynth.autoencoder.bottleneck import kl_divergence, sample
from cardiosynth.autoencoder.codebook import code_usage, codebook_losses, straight_through
from cardiosynth.autoencoder.codec import load_codec, stage_folder
from cardiosynth.autoencoder.discriminators import (
    AdversarialSettings,
    build_discriminator,
    canny_edges,
    fooling_loss,
    telling_loss,
)
from cardiosynth.autoencoder.fixed import keep_fixed
from cardiosynth.autoencoder.losses import (
    Perceptual,
    ReconstructionSettings,
    adaptive_weight,
    reconstruction_loss,
    thin_codes,
    voxel_weight,
    weighted_regions,
)
from cardiosynth.autoencoder.networks import Autoencoder, AutoencoderSettings, MaisiAutoencoder, build_autoencoder
from cardiosynth.autoencoder.verdict import VERDICT_CASES, judge
from cardiosynth.core.case import Case
from cardiosynth.core.config import Settings, parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.core.labels import LabelTable
from cardiosynth.core.random import draw_int, generator
from cardiosynth.core.store import latest_checkpoint, load_tensors, read_json
from cardiosynth.data.loader import CaseCache, block
from cardiosynth.data.preparation import check_window, recorded_preparation
from cardiosynth.data.splits import hold_out, patient_of
from cardiosynth.training.loop import Batch, Player, TrainingSettings, fit
from cardiosynth.training.processes import Processes, join_processes
from cardiosynth.training.state import WithOpponent, load_weights

STAGE = "autoencoder"

HELD_OUT_SHARE = 10
"""One patient of so many is held out where the stage does not say how many cases."""

DROPPED_MASKS = 0.1
"""Share of the examples without their mask where the stage does not say it."""


class AutoencoderStage(Settings):
    """Everything that decides how an autoencoder is trained.

    Attributes:
        network: its kind and size.
        loss: weights of the reconstruction loss.
        adversarial: the opponent that tells reconstructions from images, None for none. Published (MAISI, FQCDM) with.
        crop: voxels per axis of an example. Published (MAISI) 64 cubed, then 128 cubed.
        thin_fraction: share of the examples centered on a voxel of a thin structure, where the case has any.
        drop_mask: share of the examples whose mask the decoder is not told, so that it can do without; null for one in
            ten. Where ``network.mask_features`` tells it of masks.
        held_out: cases kept from training for the verdict, patient by patient; null for one in ten and at most 8.
        training: the loop's settings.
    """

    network: AutoencoderSettings = AutoencoderSettings()
    loss: ReconstructionSettings = ReconstructionSettings()
    adversarial: AdversarialSettings | None = None
    crop: tuple[int, ...] = (64, 64, 64)
    thin_fraction: float = pydantic.Field(default=0.6, ge=0, le=1)
    drop_mask: float | None = pydantic.Field(default=None, ge=0, le=1)
    held_out: int | None = pydantic.Field(default=None, ge=0)
    training: TrainingSettings = TrainingSettings()

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "AutoencoderStage":
        dims, factor = self.network.spatial_dims, self.network.compression
        if self.network.is_fixed and self.adversarial is not None:
            raise ValueError(f"kind {self.network.kind} has nothing to learn; set adversarial=null")
        if len(self.crop) != dims or any(n < factor or n % factor for n in self.crop):
            raise ValueError(f"crop {self.crop} must be {dims} multiples of the compression {factor}")
        if self.adversarial is not None and min(self.crop) < self.adversarial.smallest_crop:
            raise ValueError(
                f"crop {self.crop} is too small for a discriminator of {self.adversarial.layers} layers; give at least "
                f"{self.adversarial.smallest_crop} voxels per axis or fewer adversarial.layers"
            )
        if self.adversarial is not None and self.adversarial.kind == "dual" and dims != 2:
            raise ValueError("edges are found in slices; set adversarial.kind=patch, or network.spatial_dims=2")
        if self.adversarial is not None and self.training.compile:
            # The players hand over a reconstruction and ask for the step, neither of which fits into one graph.
            raise ValueError("two players cannot be compiled; set training.compile=false or adversarial=null")
        if self.network.codebook is not None and self.training.compile:
            raise ValueError("codes follow the latents outside a graph; set training.compile=false or codebook=null")
        return self


class AutoencoderTask:
    """An autoencoder, and where the stage says so its opponent, as the loop trains them.

    Args:
        cache: what it learns from; each case is drawn equally often.
        autoencoder: from ``build_autoencoder``.
        stage: how.
        perceptual: distance of two images, needed where ``stage.loss.perceptual`` is above 0.

    Raises:
        InputError: cases with another number of axes than the network, or a perceptual weight without a distance,
            or the reverse.
    """

    def __init__(
        self, cache: CaseCache, autoencoder: Autoencoder, stage: AutoencoderStage, perceptual: Perceptual | None = None
    ):
        self.cache, self.autoencoder, self.stage, self.perceptual = cache, autoencoder, stage, perceptual
        self._regions: dict[int, np.ndarray] = {}
        self._edges: dict[int, np.ndarray] = {}
        if stage.loss.perceptual and perceptual is None:
            raise InputError(
                "autoencoder.loss.perceptual is above 0 and no extractor was given; give one or set it to 0."
            )
        if perceptual is not None and not stage.loss.perceptual:
            raise InputError("an extractor was given and autoencoder.loss.perceptual is 0; set it, e.g. to 0.3.")
        for case in cache.cases:
            if len(case.grid.shape) != len(stage.crop):
                raise InputError(
                    f"case {case.case_id} has a grid of {case.grid.shape} and the autoencoder's crop is {stage.crop}; "
                    f"set autoencoder.network.spatial_dims to {len(case.grid.shape)} and the crop alike."
                )
        self.module: nn.Module = autoencoder
        self._last: tuple[Batch, Tensor] | None = None
        self._latents: tuple[Batch, Tensor] | None = None
        if stage.adversarial is not None:
            self.discriminator = build_discriminator(stage.adversarial, len(stage.crop), stage.training.seed)
            self.module = WithOpponent(autoencoder, self.discriminator)

    def players(self) -> list[Player]:
        """Return the autoencoder, and after it the discriminator, which joins after its warm-up."""
        follow = None if self.autoencoder.codebook is None else self._follow
        players = [Player(STAGE, list(self.autoencoder.parameters()), self._loss, follow=follow)]
        if self.stage.adversarial is not None:
            judge = list(self.discriminator.parameters())
            players.append(Player("discriminator", judge, self._tell, self.stage.adversarial.warmup_steps))
        return players

    def batch(self, generators: Sequence[torch.Generator]) -> Batch:
        """Return one example per generator.

        ``image`` (model units) and ``weight``, (b, 1, *crop), the case of each, ``index`` (b,), of Gaussian latents
        their ``noise``, (b, c, *latent), for a dual discriminator the images' ``edges``, (b, 1, *crop), and for a
        decoder that is told of masks ``mask``, (b, 1, *crop).
        """
        examples = [self._example(rng) for rng in generators]
        return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}

    def case_names(self, batch: Batch) -> list[str]:
        """Return the names of the cases that a batch was drawn from."""
        return [self.cache.case_ids[index] for index in batch["index"].tolist()]

    def _example(self, rng: torch.Generator) -> dict[str, Tensor]:
        stage = self.stage
        index = draw_int(len(self.cache), rng)
        labels = self.cache.cases[index].labels
        around_thin = float(torch.rand((), generator=rng)) < stage.thin_fraction
        crop = self.cache.crop(index, stage.crop, rng, thin_codes(labels, stage.loss) if around_thin else ())
        regions = torch.from_numpy(block(self._regions_of(index), crop.start, stage.crop))
        example = {"image": crop.image, "weight": voxel_weight(regions, stage.loss), "index": torch.tensor(index)}
        if stage.network.codebook is None:
            latent = tuple(n // stage.network.compression for n in stage.crop)
            example["noise"] = torch.randn((stage.network.latent_channels, *latent), generator=rng)
        if stage.adversarial is not None and stage.adversarial.kind == "dual":
            edges = block(self._edges_of(index, stage.adversarial.edge_sigma), crop.start, stage.crop)
            example["edges"] = torch.from_numpy(edges).float()
        if stage.network.mask_features is not None:
            # Drawn last, so that it changes nothing else.
            share = DROPPED_MASKS if stage.drop_mask is None else stage.drop_mask
            dropped = float(torch.rand((), generator=rng)) < share
            told = None if dropped else crop.mask
            example["mask"] = torch.zeros(crop.image.shape, dtype=torch.uint8) if told is None else told
        return example

    def _regions_of(self, index: int) -> np.ndarray:
        """Return where voxels of a case count more, (1, *grid); widening structures once per case saves a sixth."""
        if index not in self._regions:
            case = self.cache.cases[index]
            if case.mask is None:
                self._regions[index] = np.zeros((1, *case.grid.shape), np.uint8)
            else:
                found = weighted_regions(self.cache.mask(index)[None], case.labels, self.stage.loss)
                self._regions[index] = found[0].numpy()
        return self._regions[index]

    def _edges_of(self, index: int, sigma: float) -> np.ndarray:
        """Return the edges of a case's image, (1, *grid), found once per case."""
        if index not in self._edges:
            self._edges[index] = canny_edges(self.cache.image(index).numpy(), sigma)
        return self._edges[index]

    def _loss(self, batch: Batch) -> dict[str, Tensor]:
        z, cost, told = self._latent(batch)
        reconstruction = self.autoencoder.decode(z, batch.get("mask"))
        parts = reconstruction_loss(reconstruction, batch["image"], batch["weight"], self.stage.loss, self.perceptual)
        parts |= {**told, "reconstruction": parts["total"], "total": parts["total"] + cost}
        adversarial = self.stage.adversarial
        if adversarial is not None and int(batch["step"]) >= adversarial.warmup_steps:
            self._last = batch, reconstruction.detach()
            fooling = fooling_loss(self.discriminator, reconstruction, batch.get("edges"), adversarial.judgement)
            weight = fooling.new_tensor(adversarial.weight)
            if adversarial.adaptive:
                weight = weight * adaptive_weight(parts["reconstruction"], fooling, self.autoencoder.last_weight)
            parts |= {"adversarial": fooling, "adversarial_weight": weight}
            parts["total"] = parts["total"] + weight * fooling
        return parts

    def _latent(self, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return what is decoded, what its bottleneck costs, and what is to be logged of it."""
        mean, std = self.autoencoder.encode(batch["image"])
        codebook = self.autoencoder.codebook
        if codebook is None:
            divergence = kl_divergence(mean, std)
            return sample(mean, std, batch["noise"]), self.stage.loss.kl * divergence, {"kl": divergence}
        self._latents = batch, mean.detach()
        quantized = codebook.quantize(mean)
        losses = codebook_losses(mean, quantized)
        cost = sum((getattr(codebook.settings, name) * loss for name, loss in losses.items()), mean.new_zeros(()))
        usage = code_usage(codebook.nearest(mean), len(codebook.codes))
        return straight_through(mean, quantized), cost, {**losses, **usage}

    def _follow(self, batch: Batch, processes: Processes) -> None:
        assert self._latents is not None, "the latents come first"
        seen, latents = self._latents
        assert seen is batch, "codes follow the latents of their own step"
        assert self.autoencoder.codebook is not None
        step = int(batch["step"])
        drawn = generator(self.stage.training.seed, "codebook", step)
        self.autoencoder.codebook.follow(processes.whole_batch(latents), step + 1, drawn)

    def _tell(self, batch: Batch) -> dict[str, Tensor]:
        # What the autoencoder has just made of this very batch; making it again would take an eighth of the step.
        assert self._last is not None, "the autoencoder moves first"
        seen, reconstruction = self._last
        assert seen is batch, "the autoencoder moves first"
        assert self.stage.adversarial is not None
        image, edges, judgement = batch["image"], batch.get("edges"), self.stage.adversarial.judgement
        return {"total": telling_loss(self.discriminator, reconstruction, image, edges, judgement)}


def train_autoencoder(
    cases: Sequence[Case],
    run: Path,
    stage: AutoencoderStage,
    scale: IntensityScale,
    *,
    held_out: Sequence[Case] = (),
    init: Path | None = None,
    perceptual: Perceptual | None = None,
    device: str = "cpu",
) -> Path:
    """Train an autoencoder and judge it; the same call goes on after a stop.

    One that has nothing to learn is written as it is, and not judged.

    Args:
        cases: a dataset or any sequence of cases with images; masks are used where there are any.
        run: the run's folder; the stage is written to ``run/autoencoder``, the verdict to its ``verdict.json``.
        stage: how.
        scale: how it sees intensities.
        held_out: cases for the verdict; without any, some of ``cases`` are kept aside as the stage says. Where that
            leaves none, the verdict is given on the first training cases, and says so.
        init: weights to start from: a run, a checkpoint, or a ``.safetensors`` file in our layout or MAISI's.
        perceptual: distance of two images in model units, where ``stage.loss.perceptual`` is above 0.
        device: ``cpu`` or ``cuda``.

    Returns:
        The last checkpoint. Its ``record.json`` holds ``stage``, ``settings`` (of the stage), ``intensity``,
        ``labels``, ``grid`` (shape and spacing in mm of the first case), ``preparation`` (as the dataset records it,
        where it does), ``cases``, ``held_out`` (names
        of those kept aside), ``perceptual`` (fingerprint of its network), ``licences`` of the data, ``init``,
        ``code_version``, and what the loop adds: ``training``, ``step``, ``fingerprint``.

    Raises:
        InputError: fewer than two cases, cases that do not suit, weights that do not fit, or a run begun otherwise.
    """
    check_window(cases, scale)
    if stage.network.is_fixed:
        record = {**autoencoder_record(CaseCache(list(cases), scale), stage, scale), **recorded_preparation(cases)}
        return keep_fixed(build_autoencoder(stage.network), run / STAGE, record, join_processes(device))
    kept, aside = (list(cases), list(held_out)) if held_out else _kept_aside(list(cases), stage.held_out)
    cache = CaseCache(kept, scale)
    autoencoder = build_autoencoder(stage.network, stage.training.seed, cache.labels)
    started_from = None if init is None else load_initial(autoencoder, init)
    task = AutoencoderTask(cache, autoencoder, stage, perceptual)
    record = {**autoencoder_record(cache, stage, scale, started_from), **recorded_preparation(cases)}
    record["perceptual"] = None if perceptual is None else perceptual.fingerprint
    record["held_out"] = [] if held_out else [case.case_id for case in aside]
    checkpoint = fit(task, stage.training, run / STAGE, record, device=device, label="train autoencoder")
    processes = join_processes(device)
    if processes.writes:
        judge(load_codec(run, str(processes.device)), aside or cache.cases, run / STAGE, held_out=bool(aside))
    return checkpoint


def _kept_aside(cases: list[Case], count: int | None) -> tuple[list[Case], list[Case]]:
    """Return training cases and held-out ones; cases of one patient stay together."""
    patients = _patients(cases)
    if count is None:
        count = min(VERDICT_CASES, len(set(patients)) // HELD_OUT_SHARE)
    chosen = set(hold_out(patients, count))
    aside = [case for case, patient in zip(cases, patients, strict=True) if patient in chosen]
    return [case for case, patient in zip(cases, patients, strict=True) if patient not in chosen], aside


def _patients(cases: Sequence[Case]) -> list[str]:
    """Return a name for the patient of each case, as its provenance tells or else its own name."""
    names: dict[str, str] = {}
    for case in cases:
        own = patient_of(case.case_id)
        names.setdefault(str(case.provenance.get("patient", own)), own)
    return [names[str(case.provenance.get("patient", patient_of(case.case_id)))] for case in cases]


def load_initial(autoencoder: Autoencoder, source: Path) -> str:
    """Load weights to start from and return their fingerprint.

    Args:
        autoencoder: receives them.
        source: a run, a stage's folder, a checkpoint, or a ``.safetensors`` file; the file may be in MAISI's released
            layout (a released ``.pt`` becomes a run by ``cardiosynth weights import``).

    Raises:
        InputError: none of these, weights of another network, or a decoder that was told of other structures.
    """
    source = Path(source)
    if source.suffix != ".safetensors":
        if source.is_file():
            raise InputError(
                f"{source} is not a .safetensors file, and pickles are not opened here; make it a run with cardiosynth "
                "weights import, and start from that."
            )
        _check_told(autoencoder, stage_folder(source))
        return load_weights(autoencoder, stage_folder(source))
    if isinstance(autoencoder, MaisiAutoencoder) and not _has_our_prefix(source):
        return load_weights(autoencoder.network, source)
    return load_weights(autoencoder, source)


def _check_told(autoencoder: Autoencoder, folder: Path) -> None:
    """Refuse weights of a decoder that took each channel of the mask for another structure."""
    if autoencoder.mask_stem is None:
        return
    record = read_json(latest_checkpoint(folder) / "record.json")
    theirs = parse_settings(LabelTable, record["labels"], str(folder)).targets
    names, ours = ([label.name for label in table] for table in (theirs, autoencoder.mask_stem.labels.targets))
    if names != ours:
        raise InputError(
            f"{folder}: its decoder was told of {', '.join(names)}, and these cases have {', '.join(ours)}; start from "
            "another run, or prepare the cases with --map."
        )


def _has_our_prefix(file: Path) -> bool:
    return all(name.startswith(MaisiAutoencoder.PREFIX) for name in load_tensors(file))


def autoencoder_record(
    cache: CaseCache, stage: AutoencoderStage, scale: IntensityScale, init: str | None = None
) -> dict[str, Any]:
    """Return what an autoencoder's checkpoint says of itself."""
    return {
        "stage": STAGE,
        "settings": stage.model_dump(mode="json"),
        "intensity": scale.model_dump(mode="json"),
        **cache.record,
        "init": init,
        "code_version": __version__,
    }
