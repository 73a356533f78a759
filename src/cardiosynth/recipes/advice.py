"""What to change where a stage does not fit into memory, in the order of least harm."""

from collections.abc import Iterator

from cardiosynth.core.config import with_overrides
from cardiosynth.recipes.demand import Demand, training_demand
from cardiosynth.recipes.recipe import Recipe

SMALLEST_CROP = 32


def make_fit(recipe: Recipe, stage: str, demand: Demand, memory_bytes: float, *, gpu: bool) -> tuple[list[str], Demand]:
    """Change a stage until it fits.

    Args:
        recipe: all settings.
        stage: the one that does not fit.
        demand: what it asks for as it is.
        memory_bytes: what there is.
        gpu: whether to count what a GPU would do.

    Returns:
        The settings, as ``--set`` takes them, and what the stage asks for then: still too much, where nothing helps.
    """
    settings: list[str] = []
    while demand.step.peak_bytes > memory_bytes:
        change = next(changes(recipe, stage, demand, memory_bytes), None)
        if change is None:
            break
        key = change.partition("=")[0]
        settings = [setting for setting in settings if setting.partition("=")[0] != key] + [change]
        recipe = with_overrides(recipe, [change])
        demand = training_demand(recipe, stage, gpu=gpu)
    return settings, demand


def changes(recipe: Recipe, stage: str, demand: Demand, memory_bytes: float) -> Iterator[str]:
    """Yield what could be changed next, the least harmful first.

    Checkpointing costs time alone; a smaller batch costs a noisier gradient; a frozen U-Net and smaller crops change
    what is learned.
    """
    settings = getattr(recipe, stage)
    place, network = {
        "autoencoder": ("autoencoder.network", recipe.autoencoder.network),
        "segmenter": (None, None),
    }.get(stage, ("diffusion.denoiser", recipe.diffusion.denoiser))
    if network is not None and not network.checkpointing:
        yield f"{place}.checkpointing=true"
    batch = settings.training.batch_size
    if batch > 1:
        example = (demand.step.peak_bytes - demand.held_bytes) / batch
        yield f"{stage}.training.batch_size={max(1, min(batch - 1, int((memory_bytes - demand.held_bytes) / example)))}"
    if stage == "control" and settings.condition.inject == "control" and not settings.freeze_unet:
        yield "control.freeze_unet=true"
    smaller = _smaller(recipe, stage, settings.crop or recipe.shape)
    if smaller is not None:
        yield f"{stage}.crop={list(smaller)}"


def _smaller(recipe: Recipe, stage: str, crop: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the crop with its longest axes halved, or None where that would be too small."""
    steps = {"autoencoder": recipe.autoencoder.network.compression, "segmenter": recipe.segmenter.network.multiple}
    step = steps.get(stage, recipe.autoencoder.network.compression * recipe.diffusion.denoiser.multiple)
    halves = tuple(n // 2 // step * step if n == max(crop) else n for n in crop)
    return halves if min(halves) >= max(step, SMALLEST_CROP) else None
