"""Masks by any trained nnU-Net, through its own Python interface, in a child process that loads the model once.

The model folder is what nnU-Net's training leaves: ``TRAINER__PLANS__CONFIGURATION`` with ``dataset.json``,
``plans.json`` and ``fold_*/checkpoint_final.pth``. The child may belong to another Python, so that nnU-Net's version
is the user's affair.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import LabelTable, Role
from cardiosynth.core.store import file_sha256, fingerprint, read_json, write_json
from cardiosynth.data.annotate import nnunet_child
from cardiosynth.data.annotate.merge import Piece
from cardiosynth.data.annotate.plan import NnunetSettings, names_of, naming
from cardiosynth.data.annotate.programs import last_line, program_lines
from cardiosynth.data.annotate.provider import named_codes, read_labels
from cardiosynth.data.description import Description, read_description

NNUNET = {"nnUNet_raw": None, "nnUNet_preprocessed": None, "nnUNet_results": None}
"""Predicting needs none of nnU-Net's folders; the user's own are kept out of reach."""
VERSIONS = "import importlib.metadata as m; print(m.version('nnunetv2'), 'with torch', m.version('torch'))"
START_S = 60.0


@dataclass(frozen=True)
class Nnunet:
    """A trained nnU-Net as a provider.

    Attributes:
        settings: the model and how it is run.
        description: of the dataset that it was trained on.
        names: its structure -> name in the result.
        folds: that vote.
        identity: fingerprint of its plans and weights.
        version: of nnU-Net and torch in the child.
    """

    settings: NnunetSettings
    description: Description
    names: Mapping[str, str]
    folds: tuple[str, ...]
    identity: str
    version: str

    @property
    def name(self) -> str:
        """See `Provider`."""
        return str(self.settings.name)

    @property
    def table(self) -> LabelTable:
        """See `Provider`."""
        return self.description.labels

    @property
    def roles(self) -> dict[str, Role]:
        """See `Provider`."""
        return {self.names[label.name]: label.role for label in self.table if label.name in self.names}

    @property
    def facts(self) -> dict[str, Any]:
        """See `Provider`."""
        return {
            "kind": "nnunet",
            "model": f"{self.settings.model.parent.name}/{self.settings.model.name}",
            "folds": list(self.folds),
            "mirroring": self.settings.mirroring,
            "fingerprint": self.identity,
            "version": self.version,
            **naming(self.settings),
            "licence": self.settings.licence or str(self.description.facts.get("licence", "")),
        }

    def run(self, images: Mapping[str, Path], folder: Path) -> Iterator[tuple[str, str | None]]:
        """Predict each image; see `Provider`.

        A case during which the child dies (memory, time) has failed, and a new child goes on with the next.

        Raises:
            InputError: the child fails before it begins a case.
        """
        left = dict(images)
        while left:
            begun: str | None = None
            before = len(left)
            try:
                for event in self._predict(left, folder):
                    begun = event.get("begun")
                    if begun is None:
                        case_id = event.get("done") or event["failed"]
                        left.pop(case_id)
                        yield case_id, event.get("why")
            except InputError as error:
                if begun is not None:
                    left.pop(begun)
                    yield begun, str(error)
                elif len(left) == before:
                    raise
            assert len(left) < before, "the child ended well and did nothing"

    def pieces(self, case_id: str, folder: Path) -> list[Piece]:
        """Return the label map of one case."""
        load = partial(read_labels, folder / f"{case_id}.nii.gz", self.table)
        return [Piece(self.name, named_codes(self.table, self.names), load)]

    def _predict(self, images: Mapping[str, Path], folder: Path) -> Iterator[dict[str, str]]:
        """Yield what the child tells."""
        settings = self.settings
        request = {
            "model": str(settings.model.resolve()),
            "folds": list(self.folds),
            "checkpoint": settings.checkpoint,
            "device": settings.device,
            "mirroring": settings.mirroring,
            "cases": {case_id: [str(image), str(folder / f"{case_id}.nii.gz")] for case_id, image in images.items()},
        }
        with tempfile.TemporaryDirectory(prefix="cardiosynth-") as temporary:
            write_json(Path(temporary) / "request.json", request)
            command = [_python(settings), nnunet_child.__file__, str(Path(temporary) / "request.json")]
            lines = program_lines(
                command, NNUNET, settings.timeout_min * 60, folder / "log.txt", sign=nnunet_child.SIGN
            )
            with closing(lines):
                for line in lines:
                    if line.startswith(nnunet_child.SIGN):
                        yield json.loads(line.removeprefix(nnunet_child.SIGN))


def trained_nnunet(settings: NnunetSettings, unit: str) -> Nnunet:
    """Return a trained nnU-Net as a provider, once all that it needs is there.

    Args:
        settings: the model and how it is run.
        unit: intensity unit of the images.

    Raises:
        InputError: no model folder, no such fold, a cascade, regions, a model of another modality, or no nnU-Net in the
            Python that is to run it.
    """
    model = settings.model
    if not (model / "plans.json").exists() or not (model / "dataset.json").exists():
        raise InputError(
            f"{model} is no trained nnU-Net; give the folder TRAINER__PLANS__CONFIGURATION that holds plans.json, "
            "dataset.json and fold_*."
        )
    if "cascade" in model.name:
        raise InputError(f"{model} is the second stage of a cascade; give the full- or low-resolution model instead.")
    description = read_description(model)
    if "unknown" not in (unit, description.intensity_unit) and unit != description.intensity_unit:
        raise InputError(
            f"{model} was trained on '{description.intensity_unit}', the images are in '{unit}'; use another."
        )
    names = names_of([label.name for label in description.labels], settings)
    folds = _folds(settings)
    weights = {fold: file_sha256(model / f"fold_{fold}" / settings.checkpoint) for fold in folds}
    identity = fingerprint({"plans": read_json(model / "plans.json"), "weights": weights})
    return Nnunet(settings, description, names, folds, identity, _version(settings))


def _folds(settings: NnunetSettings) -> tuple[str, ...]:
    """Return the folds that vote: those asked for, or the numbered ones that are there, or ``all``."""
    found = sorted(p.parent.name.removeprefix("fold_") for p in settings.model.glob(f"fold_*/{settings.checkpoint}"))
    if settings.folds is None:
        wanted = tuple(fold for fold in found if fold != "all") or tuple(found)
    else:
        wanted = tuple(map(str, settings.folds))
    missing = [fold for fold in wanted if fold not in found]
    if missing or not wanted:
        place = settings.model / f"fold_{missing[0] if missing else '*'}" / settings.checkpoint
        raise InputError(f"{place} does not exist; copy the trained weights there or name other folds.")
    return wanted


def _python(settings: NnunetSettings) -> str:
    return str(settings.python or sys.executable)


def _version(settings: NnunetSettings) -> str:
    try:
        return last_line([_python(settings), "-c", VERSIONS], NNUNET, START_S)
    except InputError as error:
        raise InputError(
            f"{_python(settings)} cannot run nnU-Net ({error}); install it there (pip install 'cardiosynth[nnunet]') "
            "or name another Python with --python."
        ) from error
