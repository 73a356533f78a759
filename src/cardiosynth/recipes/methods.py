"""All methods that can be compared, by name: FCaS and FQCDM, made of their recipes, their peers, and users' own."""

from cardiosynth.baselines.latent_diffusion import LatentDiffusion
from cardiosynth.baselines.method import Method
from cardiosynth.baselines.registry import GROUP, PEERS, load_method, users_own
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.recipes import fcas, fqcdm, sizes
from cardiosynth.recipes.fcas import FcasRecipe
from cardiosynth.recipes.recipe import Recipe
from cardiosynth.sampling.generator import LatentDiffusionStages


def of_recipe(recipe: Recipe) -> LatentDiffusion:
    """Return what builds the generator of a recipe of FCaS or FQCDM on the terms of a comparison."""
    control = recipe.control if isinstance(recipe, FcasRecipe) else None
    stages = LatentDiffusionStages(
        intensity=recipe.intensity, autoencoder=recipe.autoencoder, diffusion=recipe.diffusion, control=control
    )
    return LatentDiffusion(stages, recipe.sampler)


FCAS = Method(
    name="fcas",
    title="FCaS",
    citation="FCaS / StructDiff; see docs/papers/fcas.md",
    spatial_dims=3,
    conditional=True,
    told_of_template=True,
    footnote="own implementation from the paper; what it leaves open is listed in docs/papers/fcas.md",
    sizes={
        recipe.name.partition("/")[2]: of_recipe(recipe) for recipe in (fcas.TINY, fcas.DEMO, sizes.SMALL, sizes.PAPER)
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
        "tiny": of_recipe(fqcdm.TINY), "demo": of_recipe(fqcdm.CPU), "small": of_recipe(fqcdm.SMALL),
        "paper": of_recipe(fqcdm.PAPER),
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
