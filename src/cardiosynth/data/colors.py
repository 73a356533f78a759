"""Label tables as 3D Slicer and ITK-SNAP read them, so that masks come up with their names and colors.

Slicer: ``# Color table file``, then one line per code, ``code name red green blue opacity`` (0..255), names without
spaces. ITK-SNAP: ``# ITK-SnAP Label Description File``, then ``code red green blue opacity visible mesh "name"``, the
opacity in 0..1.
"""

from pathlib import Path

from cardiosynth.core.labels import Label, LabelTable
from cardiosynth.core.store import write_text

SLICER, ITK_SNAP = "labels_slicer.ctbl", "labels_itksnap.txt"
RULE = "#" * 48
ITK_SNAP_HEAD = f"""{RULE}
# ITK-SnAP Label Description File
# File format:
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
# IDX: code; R, G, B: color 0..255; A: opacity 0..1; VIS, MSH: shown, meshed (0 or 1)
{RULE}
    0     0    0    0        0  0  0    "Clear Label"
"""


def slicer_color_table(labels: LabelTable) -> str:
    """Return the text of a color table (``.ctbl``) for 3D Slicer."""
    lines = ["# Color table file", f"# {len(labels) + 1} values", "0 background 0 0 0 0"]
    lines += [f"{x.code} {x.name} {x.color[0]} {x.color[1]} {x.color[2]} 255" for x in _by_code(labels)]
    return "\n".join(lines) + "\n"


def itksnap_labels(labels: LabelTable) -> str:
    """Return the text of a label description file for ITK-SNAP."""
    lines = [
        f'{x.code:5d} {x.color[0]:5d} {x.color[1]:4d} {x.color[2]:4d}        1  1  1    "{x.title}"'
        for x in _by_code(labels)
    ]
    return ITK_SNAP_HEAD + "\n".join(lines) + "\n"


def write_color_tables(root: Path, labels: LabelTable) -> None:
    """Write both files into a dataset folder."""
    write_text(root / SLICER, slicer_color_table(labels))
    write_text(root / ITK_SNAP, itksnap_labels(labels))


def _by_code(labels: LabelTable) -> list[Label]:
    return sorted(labels, key=lambda label: label.code)
