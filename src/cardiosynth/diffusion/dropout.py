"""Condition dropout: conditions without their template or without their mask, in training and in guidance alike.

What is left out becomes zero in every channel of c_raw (Eq. 1) that tells of it, and no channel tells of it in another
way. The painted channel is made from what is left: without the template it is zero, its palette included; without
the mask it is the template with its targets taken out, which tells nothing of the reference.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor

from cardiosynth.core.random import draw_int
from cardiosynth.diffusion.control import Condition, ConditionSettings, only_codes


class ConditionDropout(NamedTuple):
    """How often a training example lacks a part of its condition.

    Attributes:
        template: probability that mask and image of the template are left out.
        mask: probability that the reference mask is left out, independently.
    """

    template: float = 0.0
    mask: float = 0.0


NO_DROPOUT = ConditionDropout()
"""Every example has all of its condition."""


def without_template(condition: Condition, settings: ConditionSettings) -> Condition:
    """Return the condition without the template's mask, image and palette.

    The image becomes the intensity that the network sees as 0. It is constant, as no template's image is.
    """
    return condition._replace(
        template_mask=torch.zeros_like(condition.template_mask),
        template_image=torch.full_like(condition.template_image, settings.intensity_center),
        palette=torch.full_like(condition.palette, settings.intensity_center),
    )


def without_mask(condition: Condition) -> Condition:
    """Return the condition without the reference mask, that is with an empty one."""
    return condition._replace(reference=torch.zeros_like(condition.reference))


def dropped(
    condition: Condition, settings: ConditionSettings, dropout: ConditionDropout, rng: torch.Generator
) -> Condition:
    """Return the condition with each part left out by chance.

    The number of draws does not depend on the probabilities; with 0 nothing is ever left out.
    """
    template, mask = torch.rand(2, generator=rng).tolist()
    if template < dropout.template:
        condition = without_template(condition, settings)
    return without_mask(condition) if mask < dropout.mask else condition


def one_structure(
    reference: UInt8[Tensor, "*grid"], codes: Sequence[int], rng: torch.Generator
) -> UInt8[Tensor, "*grid"]:
    """Return the mask of one of the structures ``codes`` that are there, drawn all alike (DiffInfinite)."""
    there = sorted(set(reference.unique().tolist()) & set(codes))
    return only_codes(reference, [there[draw_int(len(there), rng)]]) if there else torch.zeros_like(reference)
