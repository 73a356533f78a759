"""What shall give masks, and how they are merged: the plan of an annotation, read from a file or from short words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from cardiosynth.core.config import Settings, parse_settings, read_yaml
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.labels import Role, normalized_name
from cardiosynth.data.annotate.merge import RANKING, Ranking, checked_ranking

TaskName = Literal["total", "body", "heartchambers_highres", "coronary_arteries"]


class ProviderSettings(Settings):
    """What every provider of masks takes.

    Attributes:
        name: what it is called in the provenance; by default its model, task or folder.
        rename: its structure -> the name in the result; several structures may become one.
        drop: structures that are left out.
        licence: under which terms its masks stand; recorded with every case.
    """

    name: str | None = None
    rename: dict[str, str] = pydantic.Field(default_factory=dict)
    drop: tuple[str, ...] = ()
    licence: str = ""


class FilesSettings(ProviderSettings):
    """Masks that lie in a folder.

    Attributes:
        folder: ``CASE.nii.gz`` (or an nnU-Net raw folder), or a folder per case with one file per structure,
            ``CASE/left_atrium.nii.gz`` or ``CASE/segmentations/left_atrium.nii.gz``.
        labels: JSON that names the codes of ``CASE.nii.gz``; by default ``labels.json`` or ``dataset.json`` in the
            folder.
        task: where the files are what TotalSegmentator wrote, its task: they are named and grouped as if it ran here.
    """

    kind: Literal["files"] = "files"
    folder: Path
    labels: Path | None = None
    task: TaskName | None = None


class ProgramSettings(ProviderSettings):
    """A program of others, run as a child process.

    Attributes:
        python: the Python that has the program installed; None for the one that runs us.
        device: ``cpu``, ``cuda`` or ``cuda:1``; ``auto`` takes CUDA where the program finds it.
        timeout_min: how long one case may take.
    """

    python: Path | None = None
    device: str = pydantic.Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    timeout_min: pydantic.PositiveFloat = 120.0


class NnunetSettings(ProgramSettings):
    """A trained nnU-Net.

    Attributes:
        model: the folder ``TRAINER__PLANS__CONFIGURATION`` with ``plans.json``, ``dataset.json`` and ``fold_*``.
        folds: which folds vote; None for all that are there.
        checkpoint: the file of each fold.
        mirroring: whether each window is predicted in every mirrored position too, as nnU-Net does by default.
    """

    kind: Literal["nnunet"] = "nnunet"
    model: Path
    folds: tuple[int | Literal["all"], ...] | None = pydantic.Field(default=None, min_length=1)
    checkpoint: str = "checkpoint_final.pth"
    mirroring: bool = True


class TotalSegmentatorSettings(ProgramSettings):
    """TotalSegmentator.

    Attributes:
        task: ``total`` and ``body`` are open; ``heartchambers_highres`` and ``coronary_arteries`` need a licence.
        fast: the coarser and quicker models, where the task has them.
        home: folder of its ``config.json`` and of its weights in ``nnunet/results``; None for the one that
            TotalSegmentator itself would take.
    """

    kind: Literal["totalsegmentator"] = "totalsegmentator"
    task: TaskName
    fast: bool = False
    home: Path | None = None


AnyProvider = Annotated[FilesSettings | NnunetSettings | TotalSegmentatorSettings, pydantic.Field(discriminator="kind")]


class AnnotationPlan(Settings):
    """How masks are made.

    Attributes:
        providers: what gives masks; on one level of the ranking a later one has the voxel.
        own: whether the masks that the dataset has already take part, as the last provider.
        ranking: names of structures, the lowest level first; a voxel that several claim is the highest one's. The words
            ``other surroundings`` and ``other targets`` stand for all that is not named.
        roles: structure -> target or surrounding, where it is not what its provider and the cardiac table say.
        keep: whether what each provider gave is kept, in ``OUT/given/``, where it serves as a ``files`` provider.
    """

    providers: tuple[AnyProvider, ...] = pydantic.Field(min_length=1)
    own: bool = True
    ranking: Annotated[Ranking, pydantic.AfterValidator(checked_ranking)] = RANKING
    roles: dict[str, Role] = pydantic.Field(default_factory=dict)
    keep: bool = False


SHORT = {"files": "folder", "nnunet": "model", "totalsegmentator": "task"}
"""Kind of provider -> the setting that stands behind the colon of ``--with KIND:VALUE``."""


def plan_of(words: Sequence[str], file: Path | None, python: Path | None, device: str, own: bool) -> AnnotationPlan:
    """Return the plan of a ``file``, or the one that ``words`` of the form ``KIND:VALUE`` stand for.

    Args:
        words: e.g. ``("totalsegmentator:total", "nnunet:MODEL_FOLDER")``.
        file: YAML or JSON with an `AnnotationPlan`.
        python: the Python of every program, where the file says none.
        device: of every program, where the file says none.
        own: whether the dataset's own masks take part.

    Raises:
        InputError: both or neither of ``words`` and ``file``, an unknown kind, or a value that no plan has.
    """
    if bool(words) == (file is not None):
        raise InputError("say what gives the masks: either --with KIND:VALUE, once or more, or --plan FILE.")
    values: dict[str, Any] = read_yaml(file) if file else {"providers": [_provider(word) for word in words]}
    for provider in values.get("providers") or []:
        if isinstance(provider, dict) and provider.get("kind") in ("nnunet", "totalsegmentator"):
            given = {"python": None if python is None else str(python), "device": device}
            provider.update({key: value for key, value in given.items() if value and key not in provider})
    if not own:
        values["own"] = False
    return parse_settings(AnnotationPlan, values, str(file or "--with"))


def _provider(word: str) -> dict[str, str]:
    kind, colon, value = word.partition(":")
    if kind not in SHORT:
        raise InputError(f"--with {word}: there is no provider '{kind}'" + suggest(kind, list(SHORT)))
    if not colon or not value:
        raise InputError(f"--with {word}: write {kind}:{SHORT[kind].upper()}.")
    return {"kind": kind, SHORT[kind]: value}


def naming(settings: ProviderSettings) -> dict[str, Any]:
    """Return what a provider's facts say of its structures' names."""
    return {"rename": dict(settings.rename), "drop": list(settings.drop)}


def names_of(
    structures: Sequence[str], settings: ProviderSettings, usual: dict[str, str] | None = None
) -> dict[str, str]:
    """Return structure -> name in the result for the structures of a provider that take part.

    Args:
        structures: all that the provider has.
        settings: what is renamed and dropped.
        usual: structure -> name where nothing else is said; None keeps every structure under its own name.

    Raises:
        InputError: something is renamed or dropped that the provider does not have, or nothing is left.
    """
    known = {normalized_name(name): name for name in structures}
    for name in (*settings.rename, *settings.drop):
        if normalized_name(name) not in known:
            raise InputError(f"provider {settings.name} has no structure '{name}'" + suggest(name, list(structures)))
    names = dict(usual) if usual is not None else {name: normalized_name(name) for name in structures}
    names |= {known[normalized_name(name)]: normalized_name(new) for name, new in settings.rename.items()}
    dropped = {known[normalized_name(name)] for name in settings.drop}
    left = {name: new for name, new in names.items() if name not in dropped}
    if not left:
        raise InputError(f"provider {settings.name}: every structure is dropped; keep one or leave the provider out.")
    return left
