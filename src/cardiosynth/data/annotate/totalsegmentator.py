"""Masks by TotalSegmentator, through its command line, case by case, without the network.

It may live in a Python of its own. What it would fetch when it runs (weights, a licence) is looked for before, and a
run never reports usage statistics: the child gets a home folder of its own, whose ``config.json`` says so and holds
the licence number of the user's. TotalSegmentator is no dependency, so the tests run a stand-in that takes the same
arguments and writes the same file. Run by hand, TotalSegmentator 2.18.0 itself (random weights) gave the same.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nibabel as nib
import numpy as np

from cardiosynth.core.errors import InputError
from cardiosynth.core.labels import LabelTable, Role, label_table
from cardiosynth.core.store import read_json
from cardiosynth.data.annotate.merge import Piece
from cardiosynth.data.annotate.plan import TotalSegmentatorSettings, names_of, naming
from cardiosynth.data.annotate.programs import last_line, program_lines
from cardiosynth.data.annotate.provider import read_labels
from cardiosynth.data.annotate.structures import ROUGH, TASKS
from cardiosynth.data.formats.files import read_mask
from cardiosynth.data.formats.nifti import is_nifti, write_nifti
from cardiosynth.data.formats.volume import Volume

PROGRAM = "TotalSegmentator"
HOME, WEIGHTS = "TOTALSEG_HOME_DIR", "TOTALSEG_WEIGHTS_PATH"
DEVICES = {"auto": "gpu", "cuda": "gpu", "cpu": "cpu"}
LICENCE_DIGITS = 18
"""TotalSegmentator takes a number of any other length for a wrong one."""
START_S = 300.0
"""How long the program may take to say its version, which loads all that it needs."""


@dataclass(frozen=True)
class TotalSegmentator:
    """One task of TotalSegmentator as a provider.

    Attributes:
        settings: the task and how it is run.
        program: its command line.
        home: folder of ``config.json`` and of the weights in ``nnunet/results``.
        weights: folder of the weights.
        names: its structure -> name in the result.
        table: codes of the masks that `run` writes.
        version: what the program says of itself.
    """

    settings: TotalSegmentatorSettings
    program: Path
    home: Path
    weights: Path
    names: Mapping[str, str]
    table: LabelTable
    version: str

    @property
    def name(self) -> str:
        """See `Provider`."""
        return str(self.settings.name)

    @property
    def roles(self) -> dict[str, Role]:
        """See `Provider`."""
        task = TASKS[self.settings.task]
        return {name: task.roles.get(name, task.role) for name in self.names.values()}

    @property
    def facts(self) -> dict[str, Any]:
        """See `Provider`."""
        return {
            "kind": "totalsegmentator",
            "task": self.settings.task,
            "fast": self.settings.fast,
            "version": self.version,
            **naming(self.settings),
            "licence": self.settings.licence or TASKS[self.settings.task].licence(self.settings.task),
        }

    def run(self, images: Mapping[str, Path], folder: Path) -> Iterator[tuple[str, str | None]]:
        """Segment each image; see `Provider`."""
        with tempfile.TemporaryDirectory(prefix="cardiosynth-") as temporary:
            home = Path(temporary)
            _private_config(self.home, home)
            environment = {HOME: str(home), WEIGHTS: str(self.weights)}
            for case_id, image in images.items():
                try:
                    self._segment(image, folder / f"{case_id}.nii.gz", environment)
                except InputError as error:
                    yield case_id, str(error)
                else:
                    yield case_id, None

    def pieces(self, case_id: str, folder: Path) -> list[Piece]:
        """Return the label map of one case."""
        load = partial(read_labels, folder / f"{case_id}.nii.gz", self.table)
        return [Piece(self.name, {label.code: label.name for label in self.table}, load)]

    def _segment(self, image: Path, mask: Path, environment: Mapping[str, str]) -> None:
        if not is_nifti(image):
            raise InputError(f"{image} is not NIfTI, the only format that {PROGRAM} is given; convert it.")
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=mask.parent) as place:
            out = Path(place) / "structures.nii.gz"
            command = [str(self.program), "-i", str(image), "-o", str(out), "--ml", "-ta", self.settings.task]
            command += ["-d", DEVICES.get(self.settings.device, self.settings.device.replace("cuda", "gpu"))]
            command += ["--fast"] if self.settings.fast else []
            for _ in program_lines(command, environment, self.settings.timeout_min * 60, mask.parent / "log.txt"):
                pass
            given = self._renumbered(out)
        write_nifti(mask, given.array, given.affine)

    def _renumbered(self, path: Path) -> Volume:
        """Return what TotalSegmentator wrote in the codes of ``table``; structures without a name there become 0."""
        volume, theirs = read_mask(path), _codes_in(path)
        missing = [structure for structure in self.names if structure not in theirs]
        if missing:
            raise InputError(
                f"{PROGRAM} {self.version} gave no {', '.join(missing)} for {self.settings.task}; drop from provider "
                f"{self.name} what it does not know, or use version 2."
            )
        ours = {label.name: label.code for label in self.table}
        change = np.zeros(256, np.uint8)
        for structure, name in self.names.items():
            change[theirs[structure]] = ours[name]
        return Volume(change[volume.array], volume.affine)


def total_segmentator(settings: TotalSegmentatorSettings, unit: str) -> TotalSegmentator:
    """Return TotalSegmentator as a provider, once all that it needs is there.

    Args:
        settings: the task and how it is run.
        unit: intensity unit of the images.

    Raises:
        InputError: images that are no CT, no program, no weights or no licence, each with where it belongs.
    """
    task = TASKS[settings.task]
    if unit != "hu":
        raise InputError(
            f"{PROGRAM}'s {settings.task} is made for CT, the images are in '{unit}'; use another provider."
        )
    if settings.fast and not task.fast:
        raise InputError(f"{PROGRAM}'s {settings.task} has no fast models; set fast to false.")
    home = settings.home or Path(os.environ.get(HOME) or Path.home() / ".totalsegmentator")
    weights = home / "nnunet" / "results"
    if settings.home is None and os.environ.get(WEIGHTS):
        weights = Path(os.environ[WEIGHTS])
    _check_weights(settings, weights)
    if task.licensed:
        _check_licence(settings, home)
    program = _program(settings.python)
    version = last_line([str(program), "--version"], {}, START_S)
    names = names_of([*task.names, *task.others], settings, dict(task.names))
    table = label_table({name: code for code, name in enumerate(dict.fromkeys(names.values()), start=1)})
    return TotalSegmentator(settings, program, home, weights, names, table, version)


def _program(python: Path | None) -> Path:
    """Return the command line that belongs to ``python`` (None for ours), or any on the path."""
    beside = Path(python or sys.executable).parent / PROGRAM
    found = beside if beside.exists() else None if python else shutil.which(PROGRAM)
    if found is None:
        raise InputError(
            f"{beside} does not exist; install {PROGRAM} in an environment of its own (pip install TotalSegmentator) "
            "and give that environment's Python with --python."
        )
    return Path(found)


def _check_weights(settings: TotalSegmentatorSettings, weights: Path) -> None:
    task = TASKS[settings.task]
    for name in task.fast if settings.fast else task.weights:
        if not any((weights / name).glob("*/fold_*/checkpoint_final.pth")):
            raise InputError(
                f"{weights / name} holds no weights of {PROGRAM}'s {settings.task}; on a machine with a network run "
                f"`totalseg_download_weights -t {_download_name(settings, name)}` and copy {name} there (or name the "
                f"folder that has nnunet/results with `home`, {HOME} or {WEIGHTS})."
            )


def _download_name(settings: TotalSegmentatorSettings, folder: str) -> str:
    """Return the task whose download brings ``folder``: the rough model comes with the others of ``total``."""
    if folder == ROUGH:
        return "total"
    return f"{settings.task}_fast" if settings.fast else settings.task


def _config(home: Path) -> dict[str, Any]:
    path = home / "config.json"
    content = read_json(path) if path.exists() else {}
    return content if isinstance(content, dict) else {}


def _check_licence(settings: TotalSegmentatorSettings, home: Path) -> None:
    if len(str(_config(home).get("license_number", ""))) != LICENCE_DIGITS:
        raise InputError(
            f"{home / 'config.json'} holds no licence number of {LICENCE_DIGITS} characters, which {PROGRAM}'s "
            f"{settings.task} needs (free for non-commercial use); get one from its makers and run "
            "`totalseg_set_license -l NUMBER`, or use a trained nnU-Net or given masks for the heart."
        )


def _codes_in(path: Path) -> dict[str, int]:
    """Return structure -> code as TotalSegmentator writes them into a mask's header; numbers differ between versions.

    Raises:
        InputError: it wrote none.
    """
    for extension in nib.load(path).header.extensions:  # pyright: ignore[reportPrivateImportUsage, reportAttributeAccessIssue]
        with suppress(ElementTree.ParseError):
            labels = ElementTree.fromstring(bytes(extension.get_content()).strip(b"\0 \n")).iter("Label")
            return {str(label.text).strip(): int(label.attrib["Key"]) for label in labels}
    raise InputError(f"{path.name} of {PROGRAM} does not say what its codes mean; use version 2.")


def _private_config(home: Path, private: Path) -> None:
    """Write the configuration of one run: the user's, without statistics and questions."""
    fresh = {"totalseg_id": "totalseg_CARDIOSYNTH", "prediction_counter": 0}
    silent = {"send_usage_stats": False, "statistics_disclaimer_shown": True}
    path = private / "config.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps({**fresh, **_config(home), **silent}), encoding="utf-8")
