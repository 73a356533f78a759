"""Weights that others trained, and what weights are."""

from pathlib import Path
from typing import Annotated

from cyclopts import App

from cardiosynth.cli.app import Json, app, output, progress
from cardiosynth.core.progress import say

weights = App(name="weights", help="Bring in released weights, and say what weights are.", sort_key=10)
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
