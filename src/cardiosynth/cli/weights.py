"""Weights that others trained, and what weights are."""

from pathlib import Path
from typing import Annotated

from cyclopts import App

from cardiosynth.cli.app import Json, Several, app, output, progress
from cardiosynth.core.progress import say

weights = App(name="weights", help="Bring in released weights, pack your own, and say what weights are.", sort_key=10)
app.command(weights)


@weights.command(name="import")
def import_(
    file: Path,
    run: Path,
    /,
    *,
    kind: str,
    layout: str = "",
    licence: str = "",
    json: Annotated[bool, Json] = False,
) -> None:
    """Turn released weights, MAISI's or MedSAM's, into a stage of a run.

    MAISI's come in this order: autoencoder, unet, controlnet. Nothing in a file is executed, and every tensor must fit.

    Args:
        file: as released (.pt, .pth), or .safetensors; of MedSAM also a folder of Hugging Face.
        run: the model's folder.
        kind: autoencoder, unet, controlnet or medsam.
        layout: ddpm-ct or rflow-ct; nothing for medsam.
        licence: under which terms the weights were given; it travels with everything made from them.
        json: progress as JSON lines.
    """
    progress(json)
    from cardiosynth.recipes.weights import import_weights

    checkpoint = import_weights(file, run, kind, layout, licence)
    say(f"{checkpoint} written, licence: {licence}", checkpoint=str(checkpoint), licence=licence)


@weights.command
def info(path: Path, /, *, json: Annotated[bool, Json] = False) -> None:
    """Say what weights are: stage or layout, parameters, labels, grid, licences, steps.

    Args:
        path: a run, one checkpoint, or a file of weights.
        json: print JSON instead of text.
    """
    from cardiosynth.recipes.weights import describe, in_words

    output(describe(path), json, in_words)


@weights.command
def pack(
    run: Path,
    out: Path,
    /,
    *,
    judge: Path | None = None,
    data: Path | None = None,
    earlier: Annotated[list[Path] | None, Several] = None,
    results: Path | None = None,
    limit_mb: float = 25.0,
    json: Annotated[bool, Json] = False,
) -> None:
    """Turn a trained run into a small one to give away: float16, what generating and judging need, and a card.

    The same command with --results, once the packed run was evaluated, writes the numbers into the card.

    Args:
        run: the model's folder, with its stages trained.
        out: the packed run; where it is one already, it is replaced.
        judge: run of a segmenter to pack along as a judge, where not the run's own.
        data: dataset folder that the generator learned from, to be described in the card.
        earlier: runs that the weights started from with --init; the card counts their steps too.
        results: results of cardiosynth evaluate on cases that the packed run made.
        limit_mb: megabytes that the weights may take.
        json: progress as JSON lines.
    """
    progress(json)
    from cardiosynth.recipes.packing import Packing, pack_run

    packed = pack_run(Packing(run, judge, data, tuple(earlier or ()), results, limit_mb), out)
    say(f"{packed} written; {packed / 'README.md'} is its card.", run=str(packed))


@weights.command
def shipped(name: str = "fcas-phantoms", /, *, json: Annotated[bool, Json] = False) -> None:
    """Print the folder of a run that comes with the program, for whatever takes a run.

    For example: cardiosynth generate "$(cardiosynth weights shipped)" OUT --templates DATASET --cases 4

    Args:
        name: of the run.
        json: print JSON instead of text.
    """
    from cardiosynth.recipes.shipped import shipped_run

    output(str(shipped_run(name)), json, str)
