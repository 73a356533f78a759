"""A method of comparison as one value: what it is called, who made it, and how its generator is built at each size.

To add one, write a module with a :class:`Method` and one line in ``registry.py`` (or an entry point, for a package of
your own). All that differs between methods is behind ``sizes``: functions from :class:`Terms` to a ``Generator``. What
such a generator keeps to, so that one command can compare them all:

- ``fit(cases, run)`` trains on ``cases`` (images and masks on one grid of ``Terms.shape``, targets and surroundings as
  ``cases.labels`` says; a conditional method is told of every label there is) with the project's loop, one folder of
  ``run`` per stage. Called again after a stop it goes on, and on a finished run it loads the weights and returns: this
  is how a trained method is loaded. An unbroken fit and one that went on are the same bits.
- All stages together take ``Terms.steps`` steps of the loop: give each stage ``terms.training(own, share)``, with
  shares that sum to 1. Every draw is a function of ``Terms.seed``; nothing else is read from the clock or the machine.
- ``generate(mask, template, seed)`` returns a Case on the mask's grid with the template's intensity unit (HU as int16,
  MR as float32; ``cases.synthetic`` makes it). Noise is ``core.random.generator(seed, "sampling", mask.case_id)``. The
  same call gives the same bits.
- A method that is not conditional takes from ``mask`` its name and its grid alone; its Case has no mask and no parents
  (``cases.synthetic`` with ``shows_mask=False``), so that evaluation measures it as a set only.
- A method of two spatial axes is written for slices (``Terms.shape`` of two axes) and never sees a volume:
  :meth:`Method.build` wraps it in ``SliceWise``.
- What a user can mend is an ``InputError``; bfloat16 is used as ``TrainingSettings.precision`` says.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from cardiosynth.baselines.slicewise import SliceWise
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.intensity import IntensityScale
from cardiosynth.sampling.generator import Generator
from cardiosynth.training.settings import TrainingSettings


@dataclass(frozen=True)
class Terms:
    """What all methods of a comparison are given alike.

    Attributes:
        shape: voxels per axis of every case, two axes for slices or three for volumes.
        intensity: how images become model units.
        steps: optimizer steps of all stages together; None takes the size's own.
        seed: of training.
        device: ``cpu`` or ``cuda``.
    """

    shape: tuple[int, ...]
    intensity: IntensityScale
    steps: int | None = None
    seed: int = 0
    device: str = "cpu"

    def training(self, own: TrainingSettings, share: float = 1.0) -> TrainingSettings:
        """Return a stage's settings of the loop with this seed and its part of the steps.

        Args:
            own: the size's own settings.
            share: part of all steps that this stage takes, in (0, 1].
        """
        assert 0 < share <= 1, share
        if self.steps is None:
            return own.model_copy(update={"seed": self.seed})
        steps = max(1, round(self.steps * share))
        warmup = min(own.warmup_steps, steps // 4)
        return own.model_copy(update={"seed": self.seed, "steps": steps, "warmup_steps": warmup})


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        name: on the command line, such as ``med-ddpm``.
        title: as the papers' tables call it.
        citation: authors, venue and year, and the official code where there is one.
        spatial_dims: axes of what it makes; those of two make volumes slice by slice.
        conditional: whether it is told of the mask.
        footnote: what differs from the official one, after the words "compact re-implementation".
        sizes: ``tiny`` (tests), ``demo`` (minutes on a processor) and ``paper`` (official values), each a function
            that returns an untrained generator.
        told_of_template: whether it also sees the template's image and mask, and so surroundings in any case. One that
            is told of the mask alone is compared with surroundings in it and without.
    """

    name: str
    title: str
    citation: str
    spatial_dims: Literal[2, 3]
    conditional: bool
    footnote: str
    sizes: Mapping[str, Callable[[Terms], Generator]]
    told_of_template: bool = False

    def build(self, size: str, terms: Terms) -> Generator:
        """Return the untrained generator of a size, slice by slice where this is a method of slices on volumes.

        Raises:
            InputError: it has no such size, or makes volumes where slices are asked for.
        """
        if size not in self.sizes:
            raise InputError(f"{self.name} has no size '{size}'" + suggest(size, list(self.sizes)))
        if len(terms.shape) == self.spatial_dims:
            return self.sizes[size](terms)
        if self.spatial_dims == 3:
            raise InputError(f"{self.name} makes volumes, not slices of {terms.shape} pixels; leave it out.")
        return SliceWise(self.sizes[size](replace(terms, shape=terms.shape[:2])))
