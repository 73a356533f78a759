"""The dataset card: README.md of a dataset folder, in words for the person who finds it."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from cardiosynth.data.description import Description

ORIGINS = {
    "real": "acquired by a scanner",
    "phantom": "procedural phantoms, no patient behind them",
    "synthetic": "made by a trained network, no scanner behind them",
}


def dataset_card(description: Description, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the card as Markdown: what is in the folder, where it comes from, under which terms."""
    origins = Counter(row["origin"] for row in rows.values())
    parts = [
        f"# {description.name}",
        f"{len(rows)} cases in nnU-Net's raw layout, written by cardiosynth: "
        "`imagesTr` (int16), `labelsTr` (uint8 codes), `confidenceTr` (uint8, 255 is certain) where there is one, "
        "`manifest*.jsonl` with one row per case: origin, parents, seed, parameters, sha256 of each file; "
        "`labels_slicer.ctbl` and `labels_itksnap.txt` with names and colors for 3D Slicer and ITK-SNAP.",
        "## Origin",
        "\n".join(f"- {count} {origin}: {ORIGINS[origin]}" for origin, count in sorted(origins.items())),
    ]
    if origins["phantom"] or origins["synthetic"]:
        parts.append(
            "**Simulated images are no patients.** Each carries `SYNTHETIC` in its NIfTI header (`descrip`). They are "
            "for method development and training, never for diagnosis."
        )
    parts += ["## Terms", _terms(rows), "## Structures", _structures(description)]
    if description.facts:
        parts += ["## How it was made", "\n".join(f"- {key}: `{value}`" for key, value in description.facts.items())]
    return "\n\n".join(parts) + "\n"


def _terms(rows: Mapping[str, Mapping[str, Any]]) -> str:
    licences = Counter(str(row["provenance"].get("licence", "")) for row in rows.values())
    sources = Counter(str(row["provenance"].get("source", "")) for row in rows.values())
    lines = [f"- {count} cases: {licence or 'no licence recorded'}" for licence, count in sorted(licences.items())]
    lines += [f"- {count} cases from: {source}" for source, count in sorted(sources.items()) if source]
    return "\n".join([*lines, "", "The strictest of these terms holds for the whole and for what is trained on it."])


def _structures(description: Description) -> str:
    unit = {"hu": "Hounsfield units", "mr": "MR values", "unknown": "unknown unit"}[description.intensity_unit]
    rows = [f"| {label.code} | {label.title} | {label.role} |" for label in description.labels]
    return "\n".join([f"Images are in {unit}.", "", "| code | structure | role |", "| ---: | --- | --- |", *rows])
