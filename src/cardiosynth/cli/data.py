"""Datasets: draw phantoms, prepare scans, examine what is there."""

from pathlib import Path
from typing import Annotated

from cardiosynth.cli.app import Json, Mapped, Setting, Several, app, grid_shape, output, positive, progress
from cardiosynth.core.errors import InputError
from cardiosynth.core.progress import say


@app.command(sort_key=1)
def phantom(
    out: Path,
    /,
    *,
    cases: int,
    shape: Annotated[list[int], Several] = [96, 96, 96],  # noqa: B006
    spacing_mm: float | None = None,
    protocols: int = 4,
    seed: int = 0,
    first: int = 0,
    first_protocol: int = 0,
    json: Annotated[bool, Json] = False,
) -> None:
    """Write procedural cardiac CT angiographies with masks as a dataset folder.

    Args:
        out: dataset folder to write; cases that are there already are kept.
        cases: how many.
        shape: voxels along X Y Z.
        spacing_mm: voxel size; by default the heart fills the field of view.
        protocols: how many scanner protocols (contrast phase, kernel, noise) the cases come in.
        seed: the run's seed.
        first: number of the first patient; other numbers are other patients.
        first_protocol: number of the first protocol; other numbers are other protocols.
        json: progress as JSON lines.
    """
    progress(json)
    from cardiosynth.recipes.phantoms import Population, write_phantoms

    grid = grid_shape(shape)
    positive(cases, "--cases")
    for number, option in ((first, "--first"), (first_protocol, "--first-protocol")):
        if number < 0:
            raise InputError(f"{option} {number}: give a number of at least 0.")
    dataset = write_phantoms(Population(cases, grid, spacing_mm, protocols, seed, first, first_protocol), out)
    say(f"{out}: {len(dataset)} phantoms of {grid}", cases=len(dataset))


@app.command(sort_key=2)
def prepare(
    kind: str,
    src: Path,
    out: Path,
    /,
    *,
    recipe: str | None = None,
    shape: Annotated[list[int] | None, Several] = None,
    spacing_mm: Annotated[list[float] | None, Several] = None,
    labels: Path | None = None,
    unit: str | None = None,
    licence: str = "",
    axes: str = "patient",
    window: Annotated[list[float] | None, Several] = None,
    to_labels: str | None = None,
    names: Annotated[list[str] | None, Mapped] = None,
    slices: str | None = None,
    size: int | None = None,
    scale: str | None = None,
    whole: bool = False,
    normalize: bool = False,
    split: str | None = None,
    workers: int = 1,
    keep_going: bool = False,
    dry_run: bool = False,
    sample: int = 20,
    json: Annotated[bool, Json] = False,
) -> None:
    """Bring a folder of scans to one grid: RAS+, resampled in physical space, cropped around the heart.

    Args:
        kind: folder (pairs in images/ and labels/), nnunet, per_structure, slices, dicom, dicom_by_folder or hdf5; or
            a data set as downloaded: acdc, asoca, hvsmr2, imagealcapa, imagecas, imagechd, mmwhs_ct or mmwhs_mr. See
            docs/data.md.
        src: the scans as downloaded.
        out: dataset folder to write; cases that are there already are kept.
        recipe: take shape and voxel size from this recipe.
        shape: voxels along X Y Z (X Y of slices), where not the recipe's.
        spacing_mm: voxel size along X Y Z (one number for all), where not the recipe's or the scan's own.
        labels: JSON with the label table (name: code), where SRC does not say.
        unit: hu or mr, where SRC does not say.
        licence: under which terms the scans of a plain folder stand; it travels with everything made from them.
        axes: patient turns oblique scans to straight axes; image keeps their own, which spares thick slices the turn.
        window: lowest and highest HU that networks will see, where not the recipe's; recorded, never applied.
        to_labels: label table of OUT: cardiac_ct, a dataset folder or a JSON file; by default the source's own.
        names: what a structure of the source becomes, e.g. --map "lv cavity=left_ventricle" (=background leaves it
            out), or a JSON file of such pairs; may be given often.
        slices: axial or short-axis cuts volumes into slices; short-axis is across the image's own slice axis.
        size: pixels per side of slices, 128 by default.
        scale: of slices: mm, width (the image's longer side becomes twice --size), or auto: mm where it is known.
        whole: keep the whole field of view, whatever its shape; for `annotate`, which wants to see all.
        normalize: of MR: the 0.5 and the 99.5 percentile of every volume become 0 and 1000, in all its slices.
        split: parts by patient: train=0.8,test=0.2, patients (train=100,test=rest), or fcas, fcas-downstream, fqcdm.
            OUT:train then stands for that part wherever a dataset is asked for.
        workers: processes at work; the result is the same.
        keep_going: end with success though some cases could not be prepared.
        dry_run: only show what would become of structures, grids and patients.
        sample: with --dry-run, how many cases are looked at, 0 for all.
        json: progress as JSON lines.
    """
    progress(json)
    from cardiosynth.data.splits import read_split
    from cardiosynth.recipes.prepare import read_source
    from cardiosynth.recipes.wishes import Wishes, plan_preparation

    positive(workers, "--workers")
    wishes = Wishes(
        recipe, shape, spacing_mm, axes, window, to_labels, names or [], slices, size, scale, whole, normalize
    )
    settings, shares = plan_preparation(wishes), None if split is None else read_split(split)
    cases = read_source(kind, src, labels, unit, licence)
    if dry_run:
        from cardiosynth.data.prepare.preview import in_words, preview

        found = preview(cases, settings, shares, sample)
        output(found, json, in_words)
        if found["problems"]:
            raise InputError(f"{src}: {found['problems'][0]}")
        return
    from cardiosynth.data.prepare.run import prepare as run

    dataset = run(cases, out, settings, name=src.name, shares=shares, workers=workers, keep_going=keep_going)
    say(f"{out}: {len(dataset)} cases", cases=len(dataset))


@app.command(sort_key=3)
def check(
    dataset: Path,
    /,
    *,
    recipe: str | None = None,
    against: Annotated[list[Path] | None, Several] = None,
    sheet: Path | None = None,
    gpu_mem: float | None = None,
    overrides: Annotated[list[str] | None, Setting] = None,
    json: Annotated[bool, Json] = False,
) -> None:
    """Examine a dataset folder; errors end with exit code 2.

    Args:
        dataset: a dataset folder or any plain nnU-Net raw folder.
        recipe: also tell whether the dataset suits this recipe, and the recipe this machine.
        against: other dataset folders that must share neither patients nor images with it, e.g. the test set.
        sheet: HTML page to write: a picture of every case, its findings and histograms beside it.
        gpu_mem: with --recipe, GB of the GPU that it is to run on.
        overrides: with --recipe, one setting, e.g. --set intensity.unit=mr; may be given often.
        json: print the facts and findings as JSON.
    """
    from cardiosynth.data.check.words import in_words
    from cardiosynth.recipes.examination import examine_dataset

    if recipe is None and (gpu_mem is not None or overrides):
        raise InputError("--gpu-mem and --set say how a recipe is run; name it with --recipe.")
    needs = fit = None
    if recipe is not None:
        from functools import partial

        from cardiosynth.core.config import with_overrides
        from cardiosynth.recipes.registry import find_recipe
        from cardiosynth.recipes.suitability import fit_findings, needs_of

        wanted = with_overrides(find_recipe(recipe), overrides or [])
        needs, fit = needs_of(wanted), partial(fit_findings, wanted, gpu_mem)
    facts = examine_dataset(dataset, against or [], needs, fit, sheet)
    output(facts, json, in_words)
    errors = sum(row["level"] == "error" for row in facts["findings"])
    if errors:
        raise InputError(f"{dataset}: {errors} of the findings must be mended before training.")
