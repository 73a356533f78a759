"""Give every case of a dataset a mask: run the providers, merge what they give, write the dataset anew.

A run killed anywhere goes on with the same command: cases that are written are kept, and so is what a provider has
given already (``OUT/given/PROVIDER/CASE.nii.gz``).
"""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cardiosynth.core.case import Case
from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.labels import CARDIAC_CT, LabelTable, Role, label_table, normalized_name
from cardiosynth.core.progress import Progress, say
from cardiosynth.core.store import fingerprint, read_json, remove_partial, write_json
from cardiosynth.data.annotate.merge import Merged, Ranking, level_of, merge
from cardiosynth.data.annotate.nnunet import trained_nnunet
from cardiosynth.data.annotate.plan import AnnotationPlan, AnyProvider, FilesSettings, NnunetSettings
from cardiosynth.data.annotate.provider import Own, Provider, given_masks
from cardiosynth.data.annotate.totalsegmentator import total_segmentator
from cardiosynth.data.dataset import SPLIT, Dataset, DatasetWriter, read_dataset, store_case
from cardiosynth.data.preparation import KEY, read_preparation

BATCH = 16
"""So many cases go through all providers before they are merged: a model is loaded once for all of them."""
GIVEN = "given"


@dataclass(frozen=True)
class Annotation:
    """A plan, checked against the dataset that it is for.

    Attributes:
        dataset: its cases with an image.
        providers: what gives masks, in the order of painting.
        labels: codes of the result.
        ranking: which structure has a voxel that several claim.
        facts: JSON-like, for the dataset's description and every case.
        keep: whether what each provider gave is kept.
    """

    dataset: Dataset
    providers: tuple[Provider, ...]
    labels: LabelTable
    ranking: Ranking
    facts: Mapping[str, Any]
    keep: bool

    def level(self, name: str) -> int:
        """Return the rank of a structure."""
        return level_of(name, self.labels.named(name).role, self.ranking)


def plan_annotation(dataset: Dataset, plan: AnnotationPlan) -> Annotation:
    """Check a plan: every program, weight and table that it needs is there.

    Args:
        dataset: its cases without an image are passed over.
        plan: what gives masks.

    Raises:
        InputError: anything that a provider lacks, or two providers of one name.
    """
    cases = dataset.with_images()
    if len(cases) < len(dataset):
        say(f"{dataset.root}: {len(dataset) - len(cases)} cases without an image are passed over.")
    if not len(cases):
        raise InputError(f"{dataset.root} holds no image; add images to imagesTr.")
    providers: list[Provider] = [_provider(settings, cases) for settings in _named(plan.providers)]
    if plan.own and len(cases.with_masks()):
        providers.append(Own(cases))
    facts = {
        "providers": {provider.name: dict(provider.facts) for provider in providers},
        "ranking": [list(level) for level in plan.ranking],
    }
    return Annotation(cases, tuple(providers), _labels(providers, plan, cases), plan.ranking, facts, plan.keep)


def annotate(annotation: Annotation, out: Path, name: str) -> Dataset:
    """Write the dataset anew with merged masks. Cases that are there already are kept.

    Args:
        annotation: a checked plan.
        out: dataset folder; one that was made by another plan is refused.
        name: what the dataset is called.

    Raises:
        InputError: at the end, naming every case that got no mask; or a provider cannot run at all.
    """
    dataset = annotation.dataset
    broken: dict[str, str] = {}
    tally = _Tally()
    with DatasetWriter(out, annotation.labels, name=name, facts=_facts(annotation)) as writer:
        pending = [case_id for case_id in dataset.case_ids if not writer.has(case_id)]
        steps = 1 + sum(provider.table is not None for provider in annotation.providers)
        done = len(dataset) - len(pending)
        with Progress("annotate", len(dataset) * steps, done * steps) as progress:
            for first in range(0, len(pending), BATCH):
                batch = pending[first : first + BATCH]
                broken |= _run_providers(annotation, batch, out / GIVEN, progress)
                for case_id in batch:
                    if case_id not in broken:
                        try:
                            _write(writer, _merged_case(annotation, case_id, out / GIVEN, tally), dataset)
                        except InputError as error:
                            broken[case_id] = str(error)
                    progress.update()
        if not list(writer):
            raise InputError(_summary(broken))
    tally.tell(annotation.labels)
    if broken:
        raise InputError(f"{_summary(broken)} The other cases are in {out}.")
    if not annotation.keep:
        shutil.rmtree(out / GIVEN, ignore_errors=True)
    return read_dataset(out)


def _write(writer: DatasetWriter, case: Case, dataset: Dataset) -> None:
    """Write one case; the part of the split that it belongs to stays its own."""
    writer.admit(case.case_id, case.labels, case.intensity_unit)
    part = {SPLIT: dataset.row(case.case_id)[SPLIT]} if SPLIT in dataset.row(case.case_id) else {}
    writer.add({**store_case(writer.root, case), **part})


def _facts(annotation: Annotation) -> dict[str, Any]:
    """Return what the dataset says of its making: all that it said before, and how its masks came."""
    facts = {
        **annotation.dataset.description.facts,
        "annotation": {**annotation.facts, "fingerprint": fingerprint(annotation.facts)},
    }
    prepared = read_preparation(facts)
    if prepared is not None:
        codes = {label.name: label.code for label in annotation.labels}
        facts[KEY] = prepared.model_copy(update={"labels": codes}).recorded()
    return facts


def _summary(broken: Mapping[str, str]) -> str:
    told = [f"{case_id}: {why}" for case_id, why in broken.items()]
    return f"{len(told)} case{'s' * (len(told) > 1)} got no mask: {' | '.join(told)}"


def _run_providers(annotation: Annotation, batch: Sequence[str], given: Path, progress: Progress) -> dict[str, str]:
    """Let every provider give its masks of some cases, those that only look for files first.

    Returns:
        Case -> why it failed.
    """
    broken: dict[str, str] = {}
    for provider in sorted(annotation.providers, key=lambda provider: provider.table is not None):
        folder = given / provider.name
        _begin(provider, folder)
        left = [case_id for case_id in batch if case_id not in broken]
        there = [case_id for case_id in left if provider.table is not None and (folder / f"{case_id}.nii.gz").exists()]
        images = {case_id: annotation.dataset.file("image", case_id) for case_id in left if case_id not in there}
        progress.update(len(batch) - len(images) if provider.table is not None else 0)
        for case_id, why in provider.run(images, folder):
            if why is not None:
                broken[case_id] = why
                say(f"{case_id}: {provider.name} failed: {why}", case_id=case_id)
            progress.update(int(provider.table is not None))
    return broken


def _begin(provider: Provider, folder: Path) -> None:
    """Make the folder for what a program gives; what other settings have left in it is removed."""
    if provider.table is None:
        return
    facts = folder / "provider.json"
    if facts.exists() and fingerprint(read_json(facts)) != fingerprint(provider.facts):
        shutil.rmtree(folder)
    if folder.exists():
        remove_partial(folder)
    write_json(facts, dict(provider.facts))
    write_json(folder / "labels.json", provider.table.model_dump(mode="json"))


def _merged_case(annotation: Annotation, case_id: str, given: Path, tally: "_Tally") -> Case:
    """Return one case with the mask that its providers' masks make.

    Raises:
        InputError: a file cannot be read, or nobody found anything.
    """
    case = annotation.dataset.case(case_id)
    pieces = [x for provider in annotation.providers for x in provider.pieces(case_id, given / provider.name)]
    codes = {label.name: label.code for label in annotation.labels}
    merged = merge(pieces, case.grid, codes, annotation.level)
    if not merged.mask.any():
        names = ", ".join(provider.name for provider in annotation.providers)
        raise InputError(f"the masks of {names} are empty; look at the image, or leave the case out.")
    tally.add(merged)
    licences = {str(case.provenance.get("licence", "")), *(str(p.facts["licence"]) for p in annotation.providers)}
    provenance = {**case.provenance, "annotation": _provenance(annotation, merged)}
    if licences - {""}:
        provenance["licence"] = "; ".join(sorted(licences - {""}))
    return case.with_(mask=merged.mask, labels=annotation.labels, provenance=provenance)


def _provenance(annotation: Annotation, merged: Merged) -> dict[str, Any]:
    return {
        "fingerprint": fingerprint(annotation.facts),
        "voxels": {provider: dict(counts) for provider, counts in merged.voxels.items()},
        "overwritten": [{"lost": a, "to": b, "voxels": n} for (a, b), n in sorted(merged.overwritten.items())],
        "resampled": sorted(merged.resampled),
    }


@dataclass
class _Tally:
    """What a run tells in the end."""

    overwritten: Counter[tuple[str, str]] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    cases: int = 0

    def add(self, merged: Merged) -> None:
        self.cases += 1
        self.overwritten += merged.overwritten
        self.found.update({name for counts in merged.voxels.values() for name, voxels in counts.items() if voxels})

    def tell(self, labels: LabelTable) -> None:
        if not self.cases:
            return
        if self.overwritten:
            lost = [f"{a} lost {n} voxels to {b}" for (a, b), n in self.overwritten.most_common()]
            say(f"overwritten in {self.cases} cases: {'; '.join(lost)}")
        rare = [
            f"{x.name} in {self.cases - self.found[x.name]}" for x in labels.targets if self.found[x.name] < self.cases
        ]
        if rare:
            say(f"of {self.cases} cases these structures are empty: {', '.join(rare)}; look at some of the masks.")


def _named(providers: Sequence[AnyProvider]) -> list[AnyProvider]:
    """Return the providers' settings, each with a name that can name a folder.

    Raises:
        InputError: two of one name.
    """
    named: dict[str, AnyProvider] = {}
    for settings in providers:
        name = normalized_name(settings.name or _usual_name(settings))
        if name in named or name == Own.name:
            raise InputError(f"two providers are called '{name}'; give each a `name` of its own in the plan.")
        named[name] = settings.model_copy(update={"name": name})
    return list(named.values())


def _usual_name(settings: AnyProvider) -> str:
    if isinstance(settings, FilesSettings):
        return settings.folder.resolve().name
    return settings.model.resolve().parent.name if isinstance(settings, NnunetSettings) else settings.task


def _provider(settings: AnyProvider, cases: Dataset) -> Provider:
    if isinstance(settings, FilesSettings):
        return given_masks(settings, cases.case_ids)
    if isinstance(settings, NnunetSettings):
        return trained_nnunet(settings, cases.intensity_unit)
    return total_segmentator(settings, cases.intensity_unit)


def _labels(providers: Sequence[Provider], plan: AnnotationPlan, dataset: Dataset) -> LabelTable:
    """Return the result's table: targets first, both in the order of the cardiac table, then what it does not know.

    A structure is a target or a surrounding one as the plan says, else as the cardiac table says, else as its provider.

    Raises:
        InputError: the plan gives a role to a structure that nobody has, or there are more than 255.
    """
    roles: dict[str, Role] = {}
    for provider in providers:
        for name, role in provider.roles.items():
            roles[name] = "target" if "target" in (role, roles.get(name)) else role
    roles |= {label.name: label.role for label in CARDIAC_CT if label.name in roles}
    for name, role in plan.roles.items():
        if normalized_name(name) not in roles:
            raise InputError(f"roles: no provider gives '{name}'" + suggest(normalized_name(name), list(roles)))
        roles[normalized_name(name)] = role
    known = [label.name for label in CARDIAC_CT]
    order = sorted(
        roles, key=lambda name: (roles[name] != "target", known.index(name) if name in known else len(known))
    )
    table = label_table({name: code for code, name in enumerate(order, start=1)})
    looks = {label.name: label for label in dataset.labels} if plan.own else {}
    changed = [
        looks.get(label.name, label).model_copy(update={"code": label.code, "role": roles[label.name]})
        for label in table
    ]
    return LabelTable(labels=tuple(changed))
