"""The model card: README.md of a packed run, written from its records and from nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cardiosynth.core.store import checkpoints, load_tensors, read_json
from cardiosynth.evaluation.results import Results, Table, read_results
from cardiosynth.recipes.registry import RECIPE
from cardiosynth.report.markdown import table_markdown
from cardiosynth.report.words import duration_text

PACKED = "packed"
"""Key of a packed checkpoint's record: ``fingerprint`` (of the weights before), ``precision``, ``trained``."""
PACKED_STAGES = ("autoencoder", "diffusion", "control", "segmenter")
DATA, EVALUATION = "data.json", "evaluation.json"
SHOWN_TABLES = ("Image similarity", "Contrast", "Agreement with the mask")
"""Beginnings of the titles of those tables of an evaluation that a card repeats; the file holds all."""

Records = Mapping[str, Mapping[str, Any]]


def model_card(run: Path, name: str) -> str:
    """Return the card of a packed run as Markdown.

    Args:
        run: the packed run.
        name: as it is called.
    """
    newest = {stage: checkpoints(run / stage)[-1] for stage in PACKED_STAGES if checkpoints(run / stage)}
    records = {stage: read_json(checkpoint / "record.json") for stage, checkpoint in newest.items()}
    parameters = {
        stage: sum(value.numel() for value in load_tensors(checkpoint / "model.safetensors").values())
        for stage, checkpoint in newest.items()
    }
    parts = [
        f"# {name}",
        _purpose(records, read_json(run / RECIPE)["name"]),
        "## Limits",
        _limits(records, _data(run)),
        "## Networks",
        _networks(records, parameters),
        "## Training",
        _training(records),
        *_data_section(records, _data(run)),
        *(_numbers(read_results(run / EVALUATION)) if (run / EVALUATION).exists() else []),
        "## Use",
        _use(records),
    ]
    return "\n\n".join(parts) + "\n"


def _data(run: Path) -> Mapping[str, Any] | None:
    return read_json(run / DATA) if (run / DATA).exists() else None


def _purpose(records: Records, recipe: str) -> str:
    record = records["autoencoder"]
    grid, names = record["grid"], [label["name"] for label in record["labels"]["labels"] if label["role"] == "target"]
    shape = "any grid" if not grid["shape"] else "a grid of " + " x ".join(map(str, grid["shape"])) + " voxels"
    spacing = f" of {' x '.join(f'{v:g}' for v in grid['spacing_mm'])} mm" if grid["spacing_mm"] else ""
    return (
        f"Latent diffusion of recipe `{recipe}`, trained by cardiosynth {record['code_version']} on {shape}{spacing}: "
        f"it makes images with confidence maps for masks of {', '.join(n.replace('_', ' ') for n in names)}. This card "
        "was written by `cardiosynth weights pack` from the records of the run."
    )


def _limits(records: Records, data: Mapping[str, Any] | None) -> str:
    lines = ["**Not for clinical use**: for method development and training, never for diagnosis."]
    if data is not None and data["origins"] == ["phantom"]:
        lines.append(
            "It has seen **procedural phantoms only**, drawn by a program, and no image of a patient. It shows how the "
            "chain works; what it makes looks like phantoms, not like scans."
        )
    lines.append(
        "Every image that it makes is marked `SYNTHETIC` in its header and names these weights in its provenance."
    )
    if any(record[PACKED]["precision"] == "float16" for record in records.values()):
        lines.append("Weights are rounded to float16 and used in float32; optimizer states are left out.")
    return "\n".join(f"- {line}" for line in lines)


def _networks(records: Records, parameters: Mapping[str, int]) -> str:
    rows = [
        f"| {stage}{' (judge)' if stage == 'segmenter' else ''} | {parameters[stage]:,} | `{record['fingerprint']}` | "
        f"`{record[PACKED]['fingerprint']}` |"
        for stage, record in records.items()
    ]
    head = ["| stage | parameters | fingerprint | of the float32 weights |", "| --- | ---: | --- | --- |"]
    note = "The segmenter took no part in making images: it judges them." if "segmenter" in records else ""
    return "\n".join([*head, *rows]) + (f"\n\n{note}" if note else "")


def _training(records: Records) -> str:
    head = ["| stage | steps | time, as it was measured | weights | began from |", "| --- | ---: | ---: | --- | --- |"]
    rows = [
        f"| {stage} | {each['step']:,} | {_duration(each)} | `{each['fingerprint']}` | {_beginning(each)} |"
        for stage, record in records.items()
        for each in reversed(record[PACKED]["trained"])
    ]
    return "\n".join(
        [
            *head,
            *rows,
            "",
            "In the order of training. Time: steps times the mean of those logged, on the machine at hand.",
        ]
    )


def _duration(trained: Mapping[str, Any]) -> str:
    seconds = trained["seconds_per_step"]
    return "not recorded" if seconds is None else duration_text(seconds * trained["step"])


def _beginning(trained: Mapping[str, Any]) -> str:
    if trained["init"]:
        return f"`{trained['init']}`"
    return f"diffusion `{trained['diffusion']}`" if trained["diffusion"] else "nothing"


def _data_section(records: Records, data: Mapping[str, Any] | None) -> list[str]:
    links = [each for record in records.values() for each in record[PACKED]["trained"]]
    licences = sorted({text for each in links for text in each["licences"] or ["unknown"]})
    lines = [f"- licences of all training data: {', '.join(licences)}"]
    if data is not None:
        lines.insert(
            0,
            f"- {data['cases']} cases ({', '.join(data['origins'])}), `{data['first']}` to `{data['last']}`, of "
            f"{data['acquisitions']} acquisitions; source: {', '.join(data['source']) or 'not recorded'}, seed "
            f"{', '.join(data['seed']) or 'not recorded'}",
        )
    held_out = records["autoencoder"].get("held_out") or []
    if held_out:
        lines.append(f"- kept from the autoencoder's training, to judge it on: {', '.join(held_out)}")
    if "segmenter" in records:
        seen: Sequence[str] = records["segmenter"]["cases"]
        lines.append(f"- the segmenter learned from {len(seen)} other cases, `{seen[0]}` to `{seen[-1]}`")
    return ["## Data", "\n".join(lines)]


def _numbers(results: Results) -> list[str]:
    shown = [table for table in results.tables if table.title.startswith(SHOWN_TABLES)]
    commands = "\n".join(stage.command for stage in results.stages if stage.command)
    return [
        "## Numbers",
        results.summary,
        *(f"```sh\n{commands}\n```" for _ in [commands] if commands),
        *("\n".join(f"- {note}" for note in results.notes) for _ in [results.notes] if results.notes),
        *(_section(table) for table in shown),
        f"All tables of this evaluation are in `{EVALUATION}`.",
    ]


def _section(table: Table) -> str:
    return f"### {table.title}\n\n{table_markdown(table)}"


def _use(records: Records) -> str:
    lines = ["cardiosynth generate THIS_FOLDER OUT --templates DATASET --cases 4"]
    lines += [f"cardiosynth train {stage} DATASET RUN --init THIS_FOLDER" for stage in records if stage != "segmenter"]
    if "segmenter" in records:
        lines.append("cardiosynth evaluate REAL SYNTHETIC --judge THIS_FOLDER --out results.json")
    return "```sh\n" + "\n".join(lines) + "\n```"
