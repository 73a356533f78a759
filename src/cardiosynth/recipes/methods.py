"""All methods that can be compared, by name: FCaS and FQCDM, made of their recipes, their peers, and users' own."""

from cardiosynth.baselines.method import Method, Terms
from cardiosynth.baselines.registry import GROUP, PEERS, load_method, users_own
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.recipes import fcas, fqcdm, sizes
from cardiosynth.recipes.fcas import FcasRecipe
from cardiosynth.recipes.recipe import Recipe
from cardiosynth.sampling.generator import Generator, LatentDiffusionGenerator, LatentDiffusionStages


class OfRecipe:
    """Builds the generator of a recipe on terms: its stages keep their shares of the steps.

    The size of crops is the recipe's where cases are as large; confidence maps are left out, which no table needs.

    Args:
        recipe: of FCaS or FQCDM.
    """

    def __init__(self, recipe: Recipe):
        self.recipe = recipe

    def __call__(self, terms: Terms) -> Generator:
        """Return the untrained generator."""
        names = ["autoencoder", "diffusion", *(["control"] if isinstance(self.recipe, FcasRecipe) else [])]
        stages = {name: getattr(self.recipe, name) for name in names}
        total = sum(stage.training.steps for stage in stages.values())
        changed = {}
        for name, stage in stages.items():
            training = terms.training(stage.training, stage.training.steps / total)
            changed[name] = stage.model_copy(update={"training": training, "crop": _within(stage.crop, terms.shape)})
        sampler = self.recipe.sampler.model_copy(update={"confidence": None})
        whole = LatentDiffusionStages(intensity=terms.intensity, **{"control": None, **changed})
        return LatentDiffusionGenerator(whole, sampler, terms.device)


def _within(crop: tuple[int, ...] | None, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    return None if crop is None else tuple(map(min, zip(crop, shape, strict=True)))


FCAS = Method(
    name="fcas",
    title="FCaS",
    citation="FCaS / StructDiff; see docs/papers/fcas.md",
    spatial_dims=3,
    conditional=True,
    told_of_template=True,
    footnote="own implementation from the paper; what it leaves open is listed in docs/papers/fcas.md",
    sizes={
        recipe.name.partition("/")[2]: OfRecipe(recipe) for recipe in (fcas.TINY, fcas.DEMO, sizes.SMALL, sizes.PAPER)
    },
)
FQCDM = Method(
    name="fqcdm",
    title="FQCDM",
    citation="FQCDM; see docs/papers/fqcdm.md",
    spatial_dims=2,
    conditional=True,
    footnote="own implementation from the paper, images sampled from noise; what it leaves open is listed in "
    "docs/papers/fqcdm.md",
    sizes={
        "tiny": OfRecipe(fqcdm.TINY), "demo": OfRecipe(fqcdm.CPU), "small": OfRecipe(fqcdm.SMALL),
        "paper": OfRecipe(fqcdm.PAPER),
    },
)  # fmt: skip
OWN = {method.name: method for method in (FCAS, FQCDM)}


def method_names() -> list[str]:
    """Return the names of all methods: FCaS, FQCDM, the peers in the order of the papers' tables, users' own."""
    return [*OWN, *PEERS, *users_own()]


def find_method(name: str) -> Method:
    """Return the method called ``name``.

    Raises:
        InputError: there is none, a package's cannot be loaded, or a package's has the name of one of ours.
    """
    users = users_own()
    taken = [other for other in users if other in OWN or other in PEERS]
    if taken:
        raise InputError(f"a package brings a method '{taken[0]}' ({GROUP}), which is one of ours; rename its own.")
    if name in OWN:
        return OWN[name]
    place = {**PEERS, **users}.get(name)
    if place is None:
        raise InputError(f"there is no method '{name}'" + suggest(name, method_names()))
    return load_method(name, place)
