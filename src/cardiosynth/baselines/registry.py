"""The peers by name; a module is imported when its method is asked for.

A peer joins with one line in ``PEERS``: its name and where its `Method` is. A package of one's own joins with an entry
point of the group ``cardiosynth.generators``. FCaS and FQCDM are methods too, but stand above this folder: the list of
all is ``recipes/methods.py``, which is what commands read.
"""

from importlib import import_module
from importlib.metadata import entry_points

from cardiosynth.baselines.method import Method
from cardiosynth.core.errors import InputError

GROUP = "cardiosynth.generators"
"""Entry point group of users' own methods: ``name = package.module:METHOD``."""

PEERS: dict[str, str] = {
    "spade": "cardiosynth.baselines.spade:METHOD",
    "controlnet": "cardiosynth.baselines.controlnet:METHOD",
    "t2i-adapter": "cardiosynth.baselines.t2i_adapter:METHOD",
    "diffinfinite": "cardiosynth.baselines.diffinfinite:METHOD",
    "pix2pix-3d": "cardiosynth.baselines.pix2pix:METHOD",
    "med-ddpm": "cardiosynth.baselines.med_ddpm:METHOD",
    "maisi": "cardiosynth.baselines.maisi:METHOD",
    "ha-gan": "cardiosynth.baselines.ha_gan:METHOD",
    "wdm": "cardiosynth.baselines.wdm:METHOD",
    "medical-diffusion": "cardiosynth.baselines.medical_diffusion:METHOD",
    "vqvae": "cardiosynth.baselines.vqvae:METHOD",
    "dcgan": "cardiosynth.baselines.dcgan:METHOD",
    "cyclegan": "cardiosynth.baselines.cycle_gan:METHOD",
    "vqgan": "cardiosynth.baselines.vqgan:METHOD",
    "ddpm": "cardiosynth.baselines.ddpm:METHOD",
}
"""Name on the command line -> where its Method is, in the order of the papers' tables."""


def load_method(name: str, place: str) -> Method:
    """Return the method at ``package.module:ATTRIBUTE``.

    Raises:
        InputError: there is none, or one of another name.
    """
    module, _, attribute = place.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"method {name} cannot be loaded from {place}: {error}; mend the package.") from error
    if not isinstance(found, Method):
        raise InputError(f"{place} is a {type(found).__name__} and no cardiosynth.baselines.method.Method; mend it.")
    if found.name != name:
        raise InputError(f"{place} calls itself {found.name} and is registered as {name}; use one name.")
    return found


def users_own() -> dict[str, str]:
    """Return name -> place of the methods that installed packages bring."""
    return {point.name: point.value for point in entry_points(group=GROUP)}
