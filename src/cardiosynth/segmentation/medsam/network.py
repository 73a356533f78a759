"""The network: transformers' Segment Anything Model, an image encoder and a decoder that boxes tell where to look."""

from typing import Any

import pydantic
import torch
from jaxtyping import Float
from torch import Tensor, nn

from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError
from cardiosynth.core.random import named_weights
from cardiosynth.core.torchvision_operators import declare_torchvision_operators

ENCODER, PROMPTS = "vision_encoder", "prompt_encoder"
"""The network's parts by name; the third is ``mask_decoder``."""


class MedsamNetwork(Settings):
    """Size of the network. The defaults are those of ViT-B, which MedSAM is: 93,735,472 parameters.

    Of these the image encoder has 89,670,912, the decoder 4,058,340, the prompt encoder, which nobody trains, 6,220.

    Attributes:
        image_size: pixels per side of the square that every slice is brought to.
        patch_size: pixels per side of a token.
        hidden_size: channels of the image encoder.
        num_layers: its depth.
        num_heads: its attention heads.
        window_size: tokens per side within which most layers attend.
        global_layers: the layers that attend everywhere.
        embedding_channels: channels of an image's embedding, and of the decoder.
        decoder_mlp_size: hidden channels of the decoder's perceptrons.
        decoder_heads: its attention heads.
        mask_channels: of the prompt encoder's way for masks, which released weights have and nobody here uses.
        quality_size: hidden channels of the decoder's estimate of its own overlap, unused as well.
    """

    image_size: int = pydantic.Field(default=1024, ge=1)
    patch_size: int = pydantic.Field(default=16, ge=1)
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    window_size: int = 14
    global_layers: tuple[int, ...] = (2, 5, 8, 11)
    embedding_channels: int = 256
    decoder_mlp_size: int = 2048
    decoder_heads: int = 8
    mask_channels: int = 16
    quality_size: int = 256

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "MedsamNetwork":
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} must be a multiple of patch_size {self.patch_size}")
        return self


def build_medsam(size: MedsamNetwork, seed: int = 0) -> nn.Module:
    """Return transformers' ``SamModel``, its weights drawn from ``seed``, its prompt encoder frozen as published.

    Raises:
        InputError: transformers is not installed.
    """
    declare_torchvision_operators()
    try:
        from transformers import SamModel
    except ModuleNotFoundError as error:
        raise InputError("MedSAM needs the package transformers; install cardiosynth[medsam].") from error
    with named_weights(seed, "medsam"):
        network = SamModel(_configuration(size))
    shared = network.shared_image_embedding.state_dict()
    network.prompt_encoder.shared_embedding.load_state_dict(shared)
    network.prompt_encoder.requires_grad_(False)
    return network


def _configuration(size: MedsamNetwork) -> Any:
    """Return transformers' ``SamConfig``."""
    from transformers import SamConfig, SamMaskDecoderConfig, SamPromptEncoderConfig, SamVisionConfig

    vision = SamVisionConfig(
        hidden_size=size.hidden_size,
        output_channels=size.embedding_channels,
        num_hidden_layers=size.num_layers,
        num_attention_heads=size.num_heads,
        image_size=size.image_size,
        patch_size=size.patch_size,
        window_size=size.window_size,
        global_attn_indexes=list(size.global_layers),
        num_pos_feats=size.embedding_channels // 2,
        initializer_range=0.02,  # the library's 1e-10 would start a new encoder at nothing
    )
    prompts = SamPromptEncoderConfig(
        hidden_size=size.embedding_channels,
        image_size=size.image_size,
        patch_size=size.patch_size,
        mask_input_channels=size.mask_channels,
    )
    decoder = SamMaskDecoderConfig(
        hidden_size=size.embedding_channels,
        mlp_dim=size.decoder_mlp_size,
        num_attention_heads=size.decoder_heads,
        iou_head_hidden_dim=size.quality_size,
    )
    return SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)


def image_embeddings(network: nn.Module, images: Float[Tensor, "b 1 s s"]) -> Float[Tensor, "b c t t"]:
    """Return what the image encoder makes of slices in model units [0, 1].

    They become three equal channels and are not normalized by the statistics of photographs, as in MedSAM.
    """
    return network.get_submodule(ENCODER)(images.expand(-1, 3, -1, -1)).last_hidden_state


def mask_logits(
    network: nn.Module, embeddings: Float[Tensor, "b c t t"], boxes: Float[Tensor, "b n 4"]
) -> Float[Tensor, "b n q q"]:
    """Return the logits of one mask per box, four pixels per token and side.

    Args:
        network: from `build_medsam`.
        embeddings: from `image_embeddings`.
        boxes: first column, first row, last column and last row of each, in pixels of the encoder's square.
    """
    answer = network(image_embeddings=embeddings, input_boxes=boxes, multimask_output=False)
    return torch.as_tensor(answer.pred_masks)[:, :, 0]
