"""A trained run becomes a small one to give away: what generation and judging need, in float16, and a card.

A packed run is a run folder like any other, but for training: that goes on in a new folder, from its weights
(``--init``). Its records name both fingerprints, that of the packed weights and that of those they were rounded from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cardiosynth.core.errors import InputError
from cardiosynth.core.progress import track
from cardiosynth.core.store import (
    checkpoints,
    file_sha256,
    fingerprint,
    latest_checkpoint,
    load_tensors,
    read_json,
    save_tensors,
    whole_folder,
    write_json,
    write_text,
)
from cardiosynth.data.dataset import Dataset, read_dataset
from cardiosynth.evaluation.results import CaseFigure, Results, read_results, write_results
from cardiosynth.recipes.model_card import DATA, EVALUATION, PACKED, PACKED_STAGES, model_card
from cardiosynth.recipes.registry import RECIPE
from cardiosynth.sampling.generator import load_generator
from cardiosynth.segmentation.predict import load_segmenter
from cardiosynth.training.log import mean_seconds_per_step

LIMIT_MB = 25.0
WEIGHTS, RECORD, VERDICT = "model.safetensors", "record.json", "verdict.json"


@dataclass(frozen=True)
class Packing:
    """What goes into a packed run.

    Attributes:
        run: with its stages trained.
        judge: run of a segmenter that is packed along to judge with; None takes the run's own, where there is one.
        data: what the generator learned from, to be described in the card.
        earlier: runs that the weights started from, so that the card can count their steps as well.
        results: of an evaluation of cases made by this very packed run.
        limit_mb: megabytes (1e6 bytes) that all weights together may take.
    """

    run: Path
    judge: Path | None = None
    data: Path | None = None
    earlier: tuple[Path, ...] = ()
    results: Path | None = None
    limit_mb: float = LIMIT_MB


def is_packed(run: Path) -> bool:
    """Whether a run's stages are packed."""
    return any(PACKED in read_json(c / RECORD) for stage in PACKED_STAGES for c in checkpoints(run / stage))


def refuse_packed(run: Path) -> None:
    """Refuse to train in a packed run.

    Raises:
        InputError: it is one.
    """
    if is_packed(run):
        raise InputError(
            f"{run} is packed: it lacks what training needs to go on; name a new run folder and add --init {run}."
        )


def pack_run(request: Packing, out: Path) -> Path:
    """Write the packed run, whole or not at all, and return its folder; the same request makes the same bits.

    Raises:
        InputError: a run that cannot generate or is packed already, a judge that took part, data that are not the
            run's, results of other weights, more than ``limit_mb``, or an ``out`` that holds something else.
    """
    _check_place(request.run, out)
    load_generator(request.run)  # says what is missing before anything is written
    sources = _sources(request)
    with whole_folder(out) as partial:
        fingerprints: dict[str, str] = {}
        for stage in track(sources, f"pack {request.run}", len(sources)):
            fingerprints[stage] = _pack_stage(stage, sources[stage], partial, fingerprints, request.earlier)
        write_json(partial / RECIPE, read_json(request.run / RECIPE))
        if request.data is not None:
            write_json(partial / DATA, _described(read_dataset(request.data), partial, request.run))
        if request.results is not None:
            write_results(_results(request.results, fingerprints), partial / EVALUATION)
        _check_loads(partial, judged="segmenter" in sources)
        _check_size(partial, request.limit_mb)
        write_text(partial / "README.md", model_card(partial, out.name))
    return out


def half(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors in float16, but those that hold no floating-point numbers, or numbers beyond its range."""
    halved = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
    return {name: value if bool(value.isfinite().all()) else tensors[name] for name, value in halved.items()}


def _check_place(run: Path, out: Path) -> None:
    if out.resolve() == run.resolve() or out.resolve() in run.resolve().parents:
        raise InputError(f"{out} holds the run itself; pack it to another folder.")
    if is_packed(run):
        raise InputError(f"{run} is packed already; copy the folder, or pack the run that it was made from.")
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not is_packed(out)):
        raise InputError(f"{out} holds something else than a packed run; give another folder.")


def _sources(request: Packing) -> dict[str, Path]:
    """Return the checkpoint of each stage that is packed; control needs nothing of the first diffusion stage."""
    run, judge = request.run, request.judge or request.run
    denoiser = "control" if (run / "control").is_dir() else "diffusion"
    found = {stage: latest_checkpoint(run / stage) for stage in ("autoencoder", denoiser)}
    if request.judge is not None or (run / "segmenter").is_dir():
        found["segmenter"] = latest_checkpoint(judge / "segmenter" if (judge / "segmenter").is_dir() else judge)
        _check_independent(found)
    return found


def _check_independent(sources: Mapping[str, Path]) -> None:
    teacher = str(read_json(sources["autoencoder"] / RECORD).get("perceptual"))
    judge = load_segmenter(sources["segmenter"])
    if not set(judge.fingerprints).isdisjoint(teacher.split("+")):
        raise InputError(
            f"the segmenter {judge.fingerprint} of {sources['segmenter']} taught the autoencoder and cannot judge; "
            "give another one with --judge."
        )


def _pack_stage(stage: str, source: Path, out: Path, fingerprints: Mapping[str, str], earlier: Sequence[Path]) -> str:
    """Write a stage's weights and record and return the weights' fingerprint."""
    record, folder = read_json(source / RECORD), out / stage / source.name
    folder.mkdir(parents=True)
    save_tensors(half(load_tensors(source / WEIGHTS)), folder / WEIGHTS)
    own = file_sha256(folder / WEIGHTS)[:16]
    packed = {
        "fingerprint": record["fingerprint"],
        "precision": "float16",
        "trained": _lineage(stage, source, record, earlier),
    }
    belongs = {"autoencoder": fingerprints["autoencoder"]} if "autoencoder" in record else {}
    write_json(folder / RECORD, {**record, **belongs, "fingerprint": own, PACKED: packed})
    verdict = source.parent / VERDICT
    if verdict.exists():
        # Given on the weights before they were rounded; without it the first use would judge, and write, here.
        write_json(out / stage / VERDICT, {**read_json(verdict), "fingerprint": own})
    return own


def _lineage(stage: str, source: Path, record: Mapping[str, Any], earlier: Sequence[Path]) -> list[dict[str, Any]]:
    """Return what was trained, the last first: steps, seconds per step where the events tell, what it began from."""
    known = {
        read_json(checkpoint / RECORD)["fingerprint"]: checkpoint
        for run in earlier
        for checkpoint in checkpoints(run / stage)
    }
    trained: list[dict[str, Any]] = []
    while True:
        facts = {key: record.get(key) for key in ("fingerprint", "step", "init", "diffusion", "cases", "licences")}
        trained.append({**facts, "seconds_per_step": mean_seconds_per_step(source.parent)})
        if record.get("init") not in known:
            return trained
        source = known[record["init"]]
        record = read_json(source / RECORD)


def _described(data: Dataset, packed: Path, run: Path) -> dict[str, Any]:
    """Return what a dataset holds, for the card: origins, sources, licences, and the names' range."""
    record = read_json(latest_checkpoint(packed / "autoencoder") / RECORD)
    names, aside = list(data.with_images().case_ids), record.get("held_out") or []
    if fingerprint([name for name in names if name not in aside]) != record["cases"]:
        raise InputError(f"{data.root} is not what the autoencoder of {run} learned from; give that dataset.")
    facts = [row["provenance"] for row in data.rows.values()]
    said = {key: sorted({str(each[key]) for each in facts if key in each}) for key in ("source", "licence", "seed")}
    return {
        "cases": len(names),
        "first": names[0],
        "last": names[-1],
        "origins": sorted({row["origin"] for row in data.rows.values()}),
        "acquisitions": len({each.get("acquisition") for each in facts}),
        **said,
    }


def _results(file: Path, fingerprints: Mapping[str, str]) -> Results:
    """Return the numbers of an evaluation, without pictures, which lie elsewhere.

    Raises:
        InputError: the cases that were evaluated are gone, or were made by other weights.
    """
    results = read_results(file)
    (figure,) = [each for each in results.figures if isinstance(each, CaseFigure)][:1] or [None]
    if figure is None:
        raise InputError(f"{file} shows no synthetic case; give the results of cardiosynth evaluate.")
    made = read_dataset(file.parent / figure.synthetic.dataset)
    for case_id, row in made.rows.items():
        by = row["provenance"].get("checkpoints", {})
        if any(by.get(stage) != own for stage, own in fingerprints.items() if stage != "segmenter"):
            raise InputError(
                f"{case_id} of {made.root} was not made by these packed weights; generate with them first."
            )
    return results.model_copy(update={"figures": (), "summary": f"{results.summary} {_how_made(made)}"})


def _how_made(made: Dataset) -> str:
    facts = [row["provenance"] for row in made.rows.values()]
    said = {key: sorted({str(each.get(key)) for each in facts}) for key in ("reference", "seed", "template_choice")}
    masks = said["reference"]
    sampler, seeds, choices = facts[0].get("sampler") or {}, ", ".join(said["seed"]), ", ".join(said["template_choice"])
    return (
        f"The synthetic ones show {len(masks)} masks, {masks[0]} to {masks[-1]}; seed {seeds}, templates chosen: "
        f"{choices}, {sampler.get('steps')} steps of {sampler.get('solver')}."
    )


def _check_loads(packed: Path, judged: bool) -> None:
    networks = [load_generator(packed).model.network, *([load_segmenter(packed).network] if judged else [])]
    for network in networks:
        assert all(value.dtype == torch.float32 for value in network.parameters()), "weights are used in float32"


def _check_size(packed: Path, limit_mb: float) -> None:
    sizes = {s: sum(f.stat().st_size for f in packed.glob(f"{s}/**/*") if f.is_file()) / 1e6 for s in PACKED_STAGES}
    if sum(sizes.values()) > limit_mb:
        each = ", ".join(f"{stage} {size:.1f}" for stage, size in sizes.items() if size)
        raise InputError(
            f"the packed run has {sum(sizes.values()):.1f} MB ({each}) and may have {limit_mb:g}; train smaller "
            "networks, or raise --limit-mb."
        )
