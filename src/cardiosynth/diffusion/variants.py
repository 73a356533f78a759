"""Training cases in other looks: latents, images and palettes, made once and kept on disk.

A file holds, beside the latents, the changed image as it was before it was encoded, so that target and template of a
pair come from one image. Its name tells image, mask and look. Images are read in parts, as latents are: what a case
costs is its size on disk.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cardiosynth.anatomy.appearance import Appearance, changed
from cardiosynth.autoencoder.codec import Codec
from cardiosynth.core.case import Case
from cardiosynth.core.intensity import Window
from cardiosynth.data.dataset import Dataset
from cardiosynth.data.loader import Where
from cardiosynth.diffusion.control import palette
from cardiosynth.diffusion.latents import Change, Latents, encode_dataset, opened
from cardiosynth.training.processes import ALONE, Processes


class Variant:
    """All cases in one look.

    Args:
        latents: of the changed images, normalized as those of the scans are.
    """

    def __init__(self, latents: Latents):
        self.latents = latents

    def image(self, index: int, where: Where = ()) -> Float[Tensor, "1 *grid"]:
        """Return a changed image, or a part of it, in model units [0, 1]; only this part is read."""
        with opened(self.latents.files[index]) as stored:
            low, high = stored.get_tensor("window").tolist()
            return Window(low=low, high=high).to_model(stored.get_slice("image")[(slice(None), *where)].float())

    def palette(self, index: int) -> Float[Tensor, "256"]:
        """Return the mean intensity of every structure of a changed image, in model units."""
        with opened(self.latents.files[index]) as stored:
            return stored.get_tensor("palette")


def encode_variants(
    codec: Codec,
    cases: Dataset,
    folder: Path,
    looks: Sequence[Appearance],
    processes: Processes = ALONE,
    budget_gb: float | None = None,
) -> list[Variant]:
    """Encode every case in every look that ``folder`` does not hold yet.

    Args:
        codec: the autoencoder; its statistics normalize what is read.
        cases: all with images and masks.
        folder: gets one file per case and look.
        looks: how cases are changed.
        processes: those that call this together.
        budget_gb: memory that encoding a case may take.

    Raises:
        InputError: see :func:`encode_dataset`.
    """
    variants = []
    for look in looks:
        facts = {"look": look.facts(), "labels": cases.labels.model_dump(mode="json")}
        change = Change(partial(changed, look=look), partial(_beside, codec), facts)
        latents = encode_dataset(codec, cases, folder, processes, budget_gb, change)
        variants.append(Variant(latents.normalized(codec.statistics)))
    return variants


def _beside(codec: Codec, case: Case) -> dict[str, Tensor]:
    """Return what is kept of a changed case beside its latents."""
    window, image = codec.window_of(case), torch.from_numpy(np.ascontiguousarray(case.required_image()))
    mask = torch.from_numpy(np.ascontiguousarray(case.required_mask()))
    return {
        "image": image,
        "window": torch.tensor((window.low, window.high), dtype=torch.float64),
        "palette": palette(window.to_model(image.float()), mask, case.labels),
    }
