"""The prior over an autoencoder's codes, told of masks or of nothing: the second stage of VQ-VAE and of VQGAN.

Codes of all cases are computed once; masks are told as the share of every label in each latent voxel's block, which
keeps walls that are thinner than a block.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from cardiosynth.autoencoder.codec import Codec, load_codec, stage_folder
from cardiosynth.baselines.transformer import Transformer, TransformerSettings
from cardiosynth.core.config import Settings, parse_settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import LabelTable
from cardiosynth.core.random import draw_int, named_weights
from cardiosynth.data.dataset import Dataset
from cardiosynth.data.loader import CaseCache
from cardiosynth.data.preparation import check_preparation
from cardiosynth.diffusion.latents import Latents, encode_dataset
from cardiosynth.diffusion.records import latents_record, read_stage
from cardiosynth.diffusion.stages import LATENTS
from cardiosynth.training.loop import Batch, Player, fit
from cardiosynth.training.processes import join_processes
from cardiosynth.training.settings import TrainingSettings
from cardiosynth.training.state import load_weights

STAGE = "prior"


class PriorStage(Settings):
    """Everything that decides how a prior is trained.

    Attributes:
        transformer: its size.
        conditional: whether it is told of masks.
        training: the loop's settings.
    """

    transformer: TransformerSettings = TransformerSettings()
    conditional: bool = True
    training: TrainingSettings = TrainingSettings()


class PriorTask:
    """A transformer that learns which code follows, case by case.

    Args:
        module: from ``build_prior``.
        codes: of every case, in raster order.
        cases: in the order of ``codes``; where the network is told of masks, with these.
        compression: image voxels per latent voxel along each axis.
    """

    def __init__(self, module: Transformer, codes: Int[Tensor, "m n"], cases: CaseCache, compression: int):
        assert len(codes) == len(cases), "cases and codes are of different sets"
        self._module, self._codes, self._cases, self._compression = module, codes, cases, compression

    @property
    def module(self) -> nn.Module:
        """The network."""
        return self._module

    def players(self) -> list[Player]:
        """Return the one player."""
        return [Player(STAGE, list(self._module.parameters()), self.loss)]

    def batch(self, generators: Sequence[torch.Generator]) -> Batch:
        """Return the case ``index`` (b,), its ``codes`` (b, n) and, where it is told, its ``mask`` (b, 1, *grid)."""
        index = torch.tensor([draw_int(len(self._cases), rng) for rng in generators])
        batch = {"index": index, "codes": self._codes[index]}
        if self._module.told is not None:
            batch["mask"] = torch.stack([self._cases.mask(number) for number in index.tolist()])
        return batch

    def case_names(self, batch: Batch) -> list[str]:
        """Return the names of the cases of a batch."""
        return [self._cases.case_ids[index] for index in batch["index"].tolist()]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the mean of -log p(s_i | s_<i, c) in nats per code, and the share of codes that were likeliest."""
        told = None
        if self._module.told is not None:
            told = label_shares(batch["mask"], self._cases.labels, self._compression)
        logits = self._module(batch["codes"], told)
        likeliest = (logits.detach().argmax(2) == batch["codes"]).float().mean()
        return {"total": F.cross_entropy(logits.flatten(0, 1), batch["codes"].flatten()), "likeliest": likeliest}


def label_shares(mask: UInt8[Tensor, "b 1 *grid"], labels: LabelTable, compression: int) -> Float[Tensor, "b n c"]:
    """Return the share of every label, target or surrounding, in the block of each latent voxel, in raster order."""
    there = torch.cat([(mask == code).float() for code in labels.codes], 1)
    pool = F.avg_pool3d if mask.ndim == 5 else F.avg_pool2d
    return pool(there, compression).flatten(2).movedim(1, 2)


def case_codes(codec: Codec, latents: Latents) -> Int[Tensor, "m n"]:
    """Return the codes of every case, in raster order.

    Args:
        codec: with raw statistics and a codebook.
        latents: raw, of cases on one grid.

    Raises:
        InputError: the autoencoder was trained for so short a time that it has no codes.
    """
    book = codec.autoencoder.codebook
    assert book is not None, "a prior is learned over codes"
    if not bool(book.sizes.sum() > 0):
        raise InputError(
            f"the autoencoder {codec.fingerprint} has no codes yet; train it for more steps than "
            f"codebook.begin_step={book.settings.begin_step}."
        )
    return torch.stack([codec.nearest_codes(mean).flatten() for mean, _ in latents])


def build_prior(stage: PriorStage, codec: Codec, labels: LabelTable, grid: Sequence[int]) -> Transformer:
    """Return a new prior.

    Args:
        stage: its size, and whether it is told of masks.
        codec: whose codes it predicts.
        labels: of the masks.
        grid: image voxels per axis.
    """
    assert codec.autoencoder.codebook is not None, "a prior is learned over codes"
    places = torch.Size(codec.latent_shape(tuple(grid))).numel()
    told = len(labels.codes) if stage.conditional else 0
    return Transformer(stage.transformer, codec.autoencoder.codebook.settings.codes, places, told)


def train_prior(cases: Dataset, run: Path, stage: PriorStage, *, device: str = "cpu") -> Path:
    """Train the prior of a run whose autoencoder is there; go on after a stop.

    Args:
        cases: the training set; cases without an image, or a mask that is told, are passed over.
        run: the model's folder; gets ``prior/`` and ``latents/``.
        stage: settings.
        device: cpu or cuda.

    Returns:
        The last checkpoint. Its ``record.json`` holds ``stage``, ``settings`` (of the stage) and the keys of
        ``latents_record``.

    Raises:
        InputError: no autoencoder, one without codes, fewer than two cases, different grids, or settings that changed.
    """
    cases, processes = cases.with_images(), join_processes(device)
    cases = cases.with_masks() if stage.conditional else cases
    codec = load_codec(run, str(processes.device))
    check_preparation(cases, codec.record, stage_folder(run))
    latents = encode_dataset(codec, cases, run / LATENTS, processes)
    record = {
        "stage": STAGE,
        "settings": stage.model_dump(mode="json"),
        **latents_record(codec, cases, latents),
    }
    with named_weights(stage.training.seed, STAGE):
        module = build_prior(stage, codec, cases.labels, record["grid"]["shape"])
    task = PriorTask(module, case_codes(codec, latents), CaseCache(cases, codec.scale), codec.compression)
    return fit(task, stage.training, run / STAGE, record, device=device, label="train prior")


def load_prior(run: Path, codec: Codec, device: str = "cpu") -> tuple[Transformer, PriorStage, dict[str, Any]]:
    """Load the newest prior of a run, strictly.

    Returns:
        The network in eval mode without gradients, the stage's settings, and the record.

    Raises:
        InputError: there is none, it belongs to another autoencoder, or its weights do not fit.
    """
    checkpoint, record = read_stage(run, STAGE, codec)
    origin = str(checkpoint / "record.json")
    stage = parse_settings(PriorStage, record["settings"], origin)
    labels = parse_settings(LabelTable, record["labels"], origin)
    network = build_prior(stage, codec, labels, record["grid"]["shape"])
    load_weights(network, checkpoint)
    return network.requires_grad_(False).eval().to(device), stage, record
