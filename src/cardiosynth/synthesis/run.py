"""Making many synthetic cases: case i is the same bits alone, in a shard or in a full run, before or after a stop."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cardiosynth.anatomy.alignment import aligned
from cardiosynth.anatomy.library import Library
from cardiosynth.anatomy.masks import MaskSettings, make_masks
from cardiosynth.anatomy.template import TemplateSettings, choose_template, without_descendants
from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError
from cardiosynth.core.progress import Progress, say
from cardiosynth.core.random import named_seed, numpy_generator
from cardiosynth.core.store import fingerprint
from cardiosynth.data.dataset import Dataset, DatasetWriter, read_dataset
from cardiosynth.data.layout import manifest
from cardiosynth.data.preparation import recorded_preparation
from cardiosynth.sampling.generator import Generator

MADE_BY = ("checkpoints", "sampler")
"""Provenance that all cases of one synthetic dataset share."""


def synthetic_name(index: int) -> str:
    """Return the name of the synthetic case with this index: ``synthetic-00007``."""
    return f"synthetic-{index:05d}"


def synthesize(
    generator: Generator,
    masks: Sequence[Case] | MaskSettings,
    templates: Sequence[Case],
    out: Path,
    count: int,
    seed: int,
    shard: tuple[int, int] | None = None,
    template_settings: TemplateSettings | None = None,
) -> Dataset:
    """Write synthetic cases 0 to ``count - 1`` to a dataset folder; those that are there already are kept.

    Case i depends on (seed, i, masks, templates, generator) only. A larger ``count`` later adds cases.

    Args:
        generator: what makes an image for a mask and a template.
        masks: reference masks, taken in turn; or how to make new ones from the templates' masks.
        templates: image-mask pairs; a ``Dataset`` is read case by case.
        out: dataset folder to write.
        count: how many cases in all parts together.
        seed: the run's seed.
        shard: (i, n) makes cases i, i + n, ... only; all parts may share ``out``.
        template_settings: how templates are chosen and aligned; at random and not at all by default. Masks of a case
            that is to be everybody's template are left out.

    Returns:
        The dataset as far as it is made. Each case holds the image, the reference mask (target structures only; none
        where the generator's case has none, as it was not told of it) and the confidence map; its row tells
        ``parents``, ``reference``, ``template``, ``template_choice``, ``template_alignment`` (where there is one),
        ``seed``, ``sampling_seed`` (what the generator was given), ``mask`` parameters, ``sampler``, ``checkpoints``,
        ``config`` and ``licence``.

    Raises:
        InputError: no mask or no suitable template, a case that the generator cannot use, or a folder made otherwise.
    """
    plan = _Plan(generator, masks, templates, seed, template_settings or TemplateSettings())
    first, step = shard or (0, 1)
    indices = range(first, count, step)
    earlier = manifest(out)
    facts = {**plan.facts, **recorded_preparation(templates if isinstance(masks, MaskSettings) else masks)}
    with DatasetWriter(out, plan.labels, name="synthetic", shard=shard, facts=facts) as writer:
        missing = [index for index in indices if not writer.has(synthetic_name(index))]
        with Progress("synthesize", len(indices), len(indices) - len(missing)) as progress:
            for index in missing:
                case = plan.make(index)
                _check_same_maker(case, earlier, out)
                writer.write(case)
                progress.update()
    return read_dataset(out)


class _Plan:
    """Which mask, template and seed belong to each index."""

    def __init__(
        self,
        generator: Generator,
        masks: Sequence[Case] | MaskSettings,
        templates: Sequence[Case],
        seed: int,
        choice: TemplateSettings,
    ):
        if not isinstance(masks, MaskSettings):
            masks = masks.with_masks() if isinstance(masks, Dataset) else [m for m in masks if m.mask is not None]
        self.generator, self.masks, self.templates, self.seed, self.choice = generator, masks, templates, seed, choice
        self.library = Library(templates)
        given = templates if isinstance(masks, MaskSettings) else masks
        self.sources = _without_template(given, self.library, choice.case)
        self.labels = self.sources.labels if isinstance(self.sources, Dataset) else self.sources[0].labels

    @property
    def facts(self) -> dict[str, Any]:
        """What must be the same for all parts of a dataset, and after a stop."""
        given = self.masks
        masks = given.model_dump(mode="json") if isinstance(given, MaskSettings) else fingerprint(_names(given))
        return {
            "seed": self.seed,
            "masks": masks,
            "templates": fingerprint(_names(self.templates)),
            **self.choice.facts(),
        }

    def make(self, index: int) -> Case:
        """Return synthetic case number ``index``."""
        mask = self._mask(index)
        rng = numpy_generator(self.seed, "template", index)
        template = choose_template(mask, self.library, self.choice, rng)
        template, alignment = aligned(template, mask, self.choice.align)
        # Masks are taken in turn: the same mask must not get the same noise twice.
        sampling_seed = named_seed(self.seed, "synthesis", index)
        made = self.generator.generate(mask, template, sampling_seed)
        provenance = {
            **made.provenance,
            **(_shown(mask, made) if made.mask is not None else {}),
            "template": template.case_id,
            "template_choice": "case" if self.choice.case else self.choice.choice,
            **({"template_alignment": alignment} if alignment else {}),
            "seed": self.seed,
            "sampling_seed": sampling_seed,
            "config": fingerprint({**self.facts, "sampler": made.provenance.get("sampler")}),
        }
        return made.with_(
            case_id=synthetic_name(index),
            mask=None if made.mask is None else mask.labels.only_targets(mask.required_mask()),
            labels=mask.labels,
            origin="synthetic",
            provenance=provenance,
        )

    def _mask(self, index: int) -> Case:
        if isinstance(self.masks, MaskSettings):
            return next(make_masks(self.sources, 1, self.seed, self.masks, first=index))
        return self.sources[index % len(self.sources)]


def _shown(mask: Case, made: Case) -> dict[str, Any]:
    """Return the provenance of a case that shows a mask."""
    parents = made.provenance.get("parents", mask.provenance.get("parents", [mask.case_id]))
    deformed = {"mask": mask.provenance["mask"]} if "mask" in mask.provenance else {}
    return {"parents": list(parents), "reference": mask.case_id, **deformed}


def _without_template(masks: Sequence[Case], library: Library, template: str | None) -> Sequence[Case]:
    """Return the masks to start from: those that were not made from the one template of all, where there is one."""
    if not len(masks):
        raise InputError("there is no mask to synthesize an image for; give a dataset with labelsTr.")
    kept = without_descendants(masks, library, template)
    left_out = len(masks) - len(kept)
    if not len(kept):
        raise InputError(f"all masks are of {template} or made from it, which is to be their template; name another.")
    if left_out:
        say(f"{left_out} of {len(masks)} masks are of {template} or made from it, their template, and are left out.")
    return kept


def _names(cases: Sequence[Case]) -> list[str]:
    return list(cases.case_ids) if isinstance(cases, Dataset) else [case.case_id for case in cases]


def _check_same_maker(case: Case, earlier: Mapping[str, Mapping[str, Any]], out: Path) -> None:
    # All earlier cases share one maker, for each was checked: the first stands for them.
    for name, row in list(earlier.items())[:1]:
        for key in MADE_BY:
            if fingerprint(row["provenance"].get(key)) != fingerprint(case.provenance.get(key)):
                raise InputError(
                    f"{out} holds {name}, made with other {key}; finish it with those or choose another folder."
                )
