"""The networks of MAISI's two released CT models, as values (Guo et al., 2024; config_network_ddpm, -_rflow).

Weights are never shipped: ``cardiosynth weights import`` reads a file that the user has. Parameters, counted: the U-Net
169.371 million (``ddpm-ct``) and 180.501 million (``rflow-ct``), the ControlNet with 8 channels of condition 68.645 and
72.037 million; nine channels more are 1944 parameters.
"""

from typing import Literal

from cardiosynth.core.config import Settings
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.diffusion.control import ConditionSettings
from cardiosynth.diffusion.denoiser import Prediction
from cardiosynth.diffusion.process import ProcessSettings
from cardiosynth.diffusion.unet import DenoiserSettings


class Layout(Settings):
    """What released weights of one kind need around them.

    Attributes:
        name: as MAISI calls it.
        denoiser: U-Net, and the ControlNet's like part.
        process: how latents were noised.
        prediction: what the network predicts.
        condition: what the ControlNet is told, widened from MAISI's 8 channels (the mask of all labels) to the 17 of
            FCaS: M'_A ++ M'_B ++ I_B.
    """

    name: Literal["ddpm-ct", "rflow-ct"]
    denoiser: DenoiserSettings
    process: ProcessSettings
    prediction: Prediction
    condition: ConditionSettings


CONDITION = ConditionSettings(
    kind="template", encoding="bits", codes="maisi", inject="control", stem="maisi", stem_channels=(8, 32, 64)
)

_SIZE = {
    "channels": (64, 128, 256, 512), "num_res_blocks": 2, "attention_levels": (False, False, True, True),
    "num_head_channels": 32, "norm_num_groups": 32, "spacing_input": True, "residual_leak": True, "checkpointing": True,
}  # fmt: skip

DDPM_CT = Layout(
    name="ddpm-ct",
    denoiser=DenoiserSettings.model_validate(
        {**_SIZE, "region_input": True, "include_fc": False, "resblock_updown": False, "timestep_offset": -1.0}
    ),
    process=ProcessSettings(kind="variance_preserving", beta_start=0.0015, beta_end=0.0195, num_steps=1000),
    prediction="epsilon",
    condition=CONDITION,
)
"""1000 steps of DDPM; told spacing and body region."""

RFLOW_CT = Layout(
    name="rflow-ct",
    denoiser=DenoiserSettings.model_validate(
        {**_SIZE, "num_modalities": 128, "include_fc": True, "resblock_updown": True, "timestep_offset": 0.0}
    ),
    process=ProcessSettings(kind="rectified_flow"),
    prediction="reversed_flow",
    condition=CONDITION,
)
"""Rectified flow in 30 steps; told spacing and modality."""

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (DDPM_CT, RFLOW_CT)}


def find_layout(name: str) -> Layout:
    """Return the layout called ``name``.

    Raises:
        InputError: no layout has this name.
    """
    if name not in LAYOUTS:
        raise InputError(f"there is no layout '{name}'" + suggest(name, sorted(LAYOUTS)))
    return LAYOUTS[name]
