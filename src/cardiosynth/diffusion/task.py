"""What the diffusion stages learn: to denoise latents, first of images alone, then of pairs (Eq. 3 and 4)."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from cardiosynth.core.random import draw_int
from cardiosynth.data.loader import CaseCache, Where
from cardiosynth.diffusion.codes import told_mask
from cardiosynth.diffusion.control import Condition, mask_alone, palette, typical_intensities
from cardiosynth.diffusion.dropout import NO_DROPOUT, ConditionDropout, dropped, one_structure
from cardiosynth.diffusion.latents import Latents
from cardiosynth.diffusion.objective import Objective
from cardiosynth.diffusion.unet import TemplateUNet
from cardiosynth.diffusion.variants import Variant
from cardiosynth.training.loop import Batch, Player


class DiffusionTask:
    """The first stage: a U-Net on single cases, told nothing or their masks.

    Args:
        module: the network.
        latents: normalized, of every case.
        objective: process, prediction, weights.
        held_out: indices of the cases that are not trained on.
        cases: their masks, in the order of ``latents``, where the network is told of them.
        dropout: how often an example lacks its mask.
    """

    def __init__(
        self,
        module: TemplateUNet,
        latents: Latents,
        objective: Objective,
        held_out: Sequence[int] = (),
        cases: CaseCache | None = None,
        dropout: ConditionDropout = NO_DROPOUT,
    ):
        assert (module.condition is None) == (cases is None), "masks and a network that is told of them belong together"
        assert cases is None or cases.case_ids == latents.case_ids, "cases and latents are of different sets"
        self._module, self._latents, self._objective = module, latents, objective
        self._cases, self._dropout = cases, dropout
        self.case_ids, self.held_out = latents.case_ids, tuple(held_out)
        self._trained = [index for index in range(len(latents)) if index not in self.held_out]

    @property
    def module(self) -> nn.Module:
        """The network."""
        return self._module

    def players(self) -> list[Player]:
        """Return the one player."""
        return [Player("denoiser", list(self._module.parameters()), self.loss)]

    def batch(self, generators: Sequence[torch.Generator]) -> Batch:
        """Return one noisy latent per generator, and the mask where the network is told of it."""
        return stacked([self._example(rng) for rng in generators])

    def case_names(self, batch: Batch) -> list[str]:
        """Return the names of the cases of a batch."""
        return [self._latents.case_ids[index] for index in batch["index"].tolist()]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss."""
        told = None if self._cases is None else self._module.embed(mask_alone(batch["reference"]))
        return self._objective.loss(self._module, batch, told)

    def held_out_batch(self, index: int, rng: torch.Generator) -> dict[str, Tensor]:
        """Return a batch of one example of a held-out case."""
        return stacked([self._example_of(index, rng)])

    def _example(self, rng: torch.Generator) -> dict[str, Tensor]:
        """Return an example; what it lacks is drawn last, so that dropout changes nothing else."""
        example = self._example_of(self._trained[draw_int(len(self._trained), rng)], rng)
        settings = self._module.condition
        if settings is not None:
            whole = mask_alone(example["reference"][None])
            example["reference"] = dropped(whole, settings, self._dropout, rng).reference[0]
            if settings.classes is not None:
                codes = settings.told_codes(self._module.labels)
                example["reference"] = one_structure(example["reference"], codes, rng)
        return example

    def _example_of(self, index: int, rng: torch.Generator) -> dict[str, Tensor]:
        (where,) = self._objective.places([index], rng)
        example = {"index": torch.tensor(index), **self._objective.example(self._latents, index, where, rng)}
        if self._cases is not None:
            example["reference"] = self._cases.mask(index, self._objective.voxels(where))
        return example


class ControlTask:
    """The second stage: pairs (A, B) of cases, A != B, one the target and the other its template.

    Each example holds two directions, stacked in one forward. Bidirectional (Eq. 4) they are A@B and B@A of one
    pair; one-directional they are two pairs drawn independently, so that both are compared at equal batch. Eq. 4
    adds the two losses, we take their mean, which differs by a factor.

    Args:
        module: the conditional network.
        cases: images and masks, in the order of ``latents``.
        latents: normalized, of every case.
        objective: process, prediction, weights.
        bidirectional: whether the two directions belong to one pair.
        freeze_unet: whether only the stem and the ControlNet learn.
        dropout: how often a direction lacks its template or its mask.
        held_out: indices of the cases that are not trained on.
        variants: the same cases in other looks. Each pair is given one of these or none, both of its cases the same.
    """

    def __init__(
        self,
        module: TemplateUNet,
        cases: CaseCache,
        latents: Latents,
        objective: Objective,
        *,
        bidirectional: bool = True,
        freeze_unet: bool = False,
        dropout: ConditionDropout = NO_DROPOUT,
        held_out: Sequence[int] = (),
        variants: Sequence[Variant] = (),
    ):
        assert module.condition is not None, "the second stage needs a condition"
        assert cases.case_ids == latents.case_ids, "cases and latents are of different sets"
        self._module, self._cases, self._latents, self._objective = module, cases, latents, objective
        self._bidirectional, self._condition, self._dropout = bidirectional, module.condition, dropout
        self._variants = tuple(variants)
        self.case_ids, self.held_out = latents.case_ids, tuple(held_out)
        self._trained = [index for index in range(len(latents)) if index not in self.held_out]
        self._mates = mates(cases, module.condition.template, self.held_out)
        labels = module.labels
        self._palettes = [palette(cases.image(i), cases.mask(i), labels) for i in range(len(cases))]
        self._told = [torch.from_numpy(told_mask(case, module.condition.codes)) for case in cases.cases]
        for parameter in module.unet.parameters():
            parameter.requires_grad_(not freeze_unet)

    @property
    def module(self) -> nn.Module:
        """The network, the frozen part included."""
        return self._module

    def players(self) -> list[Player]:
        """Return the one player: everything that is not frozen."""
        return [Player("denoiser", [p for p in self._module.parameters() if p.requires_grad], self.loss)]

    def typical_intensities(self) -> dict[str, float]:
        """Return the mean intensity of every target structure over the training cases, in model units, by name."""
        masks = (self._cases.mask(index) for index in self._trained)
        return typical_intensities([self._palettes[index] for index in self._trained], masks, self._module.labels)

    def batch(self, generators: Sequence[torch.Generator]) -> Batch:
        """Return two directions per generator: noisy latents and the volumes that condition them."""
        return stacked([example for rng in generators for example in self._directions(rng)])

    def case_names(self, batch: Batch) -> list[str]:
        """Return the names of the targets and templates of a batch."""
        return [self._latents.case_ids[index] for index in batch["index"].flatten().tolist()]

    def pairs(self, rng: torch.Generator) -> list[tuple[int, int]]:
        """Draw (target, template) of the two directions of one example."""
        first, second = self._pair(rng)
        return [(first, second), (second, first) if self._bidirectional else self._pair(rng)]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss of both directions; the embedding is computed once."""
        condition = Condition(*(batch[name] for name in Condition._fields))
        return self._objective.loss(self._module, batch, self._module.embed(condition))

    def held_out_batch(self, index: int, rng: torch.Generator) -> dict[str, Tensor]:
        """Return a batch of one direction: a held-out case as the target, a training case as its template."""
        pair = (index, self.mate(index, rng))
        return stacked([self._example(*pair, self._objective.places(pair, rng), rng)])

    def mate(self, index: int, rng: torch.Generator) -> int:
        """Draw a template for a case."""
        return self._mates[index][draw_int(len(self._mates[index]), rng)]

    def _pair(self, rng: torch.Generator) -> tuple[int, int]:
        index = self._trained[draw_int(len(self._trained), rng)]
        return index, self.mate(index, rng)

    def _directions(self, rng: torch.Generator) -> list[dict[str, Tensor]]:
        """Return both examples; what they lack is drawn last, so that dropout changes nothing else.

        Without variants none is drawn, so that what is trained without them stays the same.
        """
        pairs = self.pairs(rng)
        places = [self._objective.places(pair, rng) for pair in (pairs[:1] if self._bidirectional else pairs)]
        if self._bidirectional:  # a pair is cut once, for both directions
            places.append(places[0][::-1])
        looks = [self._look(rng) for _ in (pairs[:1] if self._bidirectional else pairs)]
        looks = looks * 2 if self._bidirectional else looks  # both directions belong to one pair
        told = zip(pairs, places, looks, strict=True)
        examples = [self._example(*pair, where, rng, look) for pair, where, look in told]
        conditions = [Condition(*(example[name] for name in Condition._fields)) for example in examples]
        conditions = [dropped(condition, self._condition, self._dropout, rng) for condition in conditions]
        return [example | given._asdict() for example, given in zip(examples, conditions, strict=True)]

    def _look(self, rng: torch.Generator) -> Variant | None:
        """Draw one of the variants, or None for the scans as they are, all alike."""
        drawn = draw_int(len(self._variants) + 1, rng) if self._variants else 0
        return self._variants[drawn - 1] if drawn else None

    def _example(
        self, index: int, template: int, places: Sequence[Where], rng: torch.Generator, look: Variant | None = None
    ) -> dict[str, Tensor]:
        own, other = (self._objective.voxels(where) for where in places)
        latents, image, shades = self._latents, self._cases.image, self._palettes.__getitem__
        if look is not None:
            latents, image, shades = look.latents, look.image, look.palette
        return {
            "index": torch.tensor((index, template)), **self._objective.example(latents, index, places[0], rng),
            "reference": self._cases.mask(index, own), "template_mask": self._told[template][(slice(None), *other)],
            "template_image": image(template, other), "palette": shades(template),
        }  # fmt: skip


def stacked(examples: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return a batch of examples that hold the same names."""
    return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}


def mates(
    cases: CaseCache, choice: Literal["random", "same_acquisition"], held_out: Sequence[int] = ()
) -> list[list[int]]:
    """Return for every case which others, of those that are not held out, may be its template.

    ``same_acquisition`` compares ``provenance["acquisition"]``; a case without it, or the only one of its kind, takes
    any other case.
    """
    found = []
    for index, alike in enumerate(_alike(cases, held_out)):
        others = [other for other in range(len(cases)) if other != index and other not in held_out]
        found.append(alike if choice == "same_acquisition" and alike else others)
    return found


def without_partner(cases: CaseCache, held_out: Sequence[int] = ()) -> list[int]:
    """Return which cases share their acquisition with no other case that is not held out."""
    return [index for index, alike in enumerate(_alike(cases, held_out)) if not alike]


def _alike(cases: CaseCache, held_out: Sequence[int]) -> list[list[int]]:
    kinds = [case.provenance.get("acquisition") for case in cases.cases]
    return [
        [other for other, its in enumerate(kinds) if kind and its == kind and other != index and other not in held_out]
        for index, kind in enumerate(kinds)
    ]
