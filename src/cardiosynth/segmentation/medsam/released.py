"""Weights that others released, in either of their layouts, as our checkpoint.

Segment Anything and MedSAM give ``.pth`` files in the layout of the original code; Hugging Face gives the same weights
under other names. Nothing in a file is executed.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from cardiosynth import __version__
from cardiosynth.core.errors import InputError
from cardiosynth.core.store import checkpoints, file_sha256, save_checkpoint
from cardiosynth.segmentation.medsam.network import ENCODER, MedsamNetwork, build_medsam
from cardiosynth.segmentation.medsam.task import PUBLISHED_SCALE, STAGE, MedsamStage
from cardiosynth.training.released import read_released
from cardiosynth.training.state import load_strictly

KEY = "model"
"""Name of the weights where a file holds more, as MedSAM's own checkpoints do."""
FILES = ("model.safetensors", "pytorch_model.bin")
"""What holds the weights in a folder of Hugging Face."""
ORIGINAL = "image_encoder."
"""Begins names of the original layout only."""
STATISTICS = ("pixel_mean", "pixel_std")
"""Of photographs; MedSAM does not use them."""
SHARED, SHARED_AGAIN = (
    "shared_image_embedding.positional_embedding",
    "prompt_encoder.shared_embedding.positional_embedding",
)
"""One tensor under two names; files have one of them or both."""
RENAMED = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^image_encoder\.", "vision_encoder."),
        (r"^vision_encoder\.blocks\.", "vision_encoder.layers."),
        (r"\bpatch_embed\.proj\.", "patch_embed.projection."),
        (r"\bneck\.0\.", "neck.conv1."),
        (r"\bneck\.1\.", "neck.layer_norm1."),
        (r"\bneck\.2\.", "neck.conv2."),
        (r"\bneck\.3\.", "neck.layer_norm2."),
        (r"\bnorm(\d|_final_attn)\.", r"layer_norm\1."),
        (r"\bpe_layer\.positional_encoding_gaussian_matrix$", "shared_embedding.positional_embedding"),
        (r"\bpoint_embeddings\.", "point_embed."),
        (r"\bmask_downscaling\.0\.", "mask_embed.conv1."),
        (r"\bmask_downscaling\.1\.", "mask_embed.layer_norm1."),
        (r"\bmask_downscaling\.3\.", "mask_embed.conv2."),
        (r"\bmask_downscaling\.4\.", "mask_embed.layer_norm2."),
        (r"\bmask_downscaling\.6\.", "mask_embed.conv3."),
        (r"\boutput_upscaling\.0\.", "upscale_conv1."),
        (r"\boutput_upscaling\.1\.", "upscale_layer_norm."),
        (r"\boutput_upscaling\.3\.", "upscale_conv2."),
        # The perceptrons of the decoder, three layers each. The middle one comes last: it takes the first one's name.
        (r"(_mlps\.\d+|prediction_head)\.layers\.2\.", r"\1.proj_out."),
        (r"(_mlps\.\d+|prediction_head)\.layers\.0\.", r"\1.proj_in."),
        (r"(_mlps\.\d+|prediction_head)\.layers\.1\.", r"\1.layers.0."),
    )
)
"""Names of the original layout -> those of transformers, applied in this order."""


def import_medsam(source: Path, run: Path, licence: str, network: MedsamNetwork | None = None) -> Path:
    """Write released weights as the stage ``medsam`` of ``run`` and return the checkpoint, to start or predict from.

    Args:
        source: ``.pth``, ``.bin`` or ``.safetensors``, of either layout, or a folder of Hugging Face.
        run: gets ``medsam/step-0000000``.
        licence: under which the weights were given.
        network: its size; None for ViT-B.

    Raises:
        InputError: no licence, a stage that is there already, a file that cannot be read as tensors alone, or a tensor
            that is missing, unknown or of another shape.
    """
    if not licence.strip():
        raise InputError(
            "weights travel with their licence, so say --licence TEXT; take it from what came with your download."
        )
    if checkpoints(run / STAGE):
        raise InputError(f"{run} has a stage '{STAGE}' already; name another run folder.")
    size, file = network or MedsamNetwork(), weight_file(source)
    model = build_medsam(size)
    load_strictly(model, read_medsam(file), file)
    record: dict[str, Any] = {
        "stage": STAGE,
        "settings": MedsamStage(network=size).model_dump(mode="json"),
        "intensity": PUBLISHED_SCALE.model_dump(mode="json"),
        "released": {"file": file.name, "sha256": file_sha256(file)},
        "cases": None,
        "licences": [licence],
        "init": None,
        "code_version": __version__,
    }
    # Cloned, because safetensors refuses tensors that share memory, as the two of one name do.
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    return save_checkpoint(run / STAGE, 0, weights, {}, record)


def weight_file(source: Path) -> Path:
    """Return the file of weights in a folder of Hugging Face, or ``source`` itself where it is a file.

    Raises:
        InputError: the folder holds none.
    """
    if not source.is_dir():
        return source
    found = [source / name for name in FILES if (source / name).exists()]
    if not found:
        raise InputError(f"{source} holds neither {' nor '.join(FILES)}; name a file of weights.")
    return found[0]


def read_medsam(file: Path) -> dict[str, Tensor]:
    """Return released weights, float32, under the names of transformers.

    Raises:
        InputError: see :func:`read_released`.
    """
    weights, _ = read_released(file, KEY)
    weights = {name.removeprefix("module."): value for name, value in weights.items()}  # saved by several processes
    if any(name.startswith(ORIGINAL) for name in weights):
        weights = renamed(weights)
    for one, other in ((SHARED, SHARED_AGAIN), (SHARED_AGAIN, SHARED)):
        if one in weights and other not in weights:
            weights[other] = weights[one]
    return weights


def is_medsam(names: Iterable[str]) -> bool:
    """Return whether these are the names of Segment Anything's weights, in either layout."""
    return any(name.removeprefix("module.").startswith((ORIGINAL, f"{ENCODER}.")) for name in names)


def renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of the original layout under the names of transformers."""
    found = {}
    for name, value in weights.items():
        if name not in STATISTICS:
            for pattern, replacement in RENAMED:
                name = pattern.sub(replacement, name)
            found[name] = value
    return found
