"""Which cases are shown side by side: masks beside their sources, one mask under several templates."""

from collections.abc import Sequence
from pathlib import Path

from cardiosynth.core.store import fingerprint
from cardiosynth.data.dataset import Dataset
from cardiosynth.evaluation.results import GalleryFigure, Tile, pointer

MOST_TILES = 5


def mask_gallery(masks: Dataset, sources: Dataset, relative_to: Path | None) -> GalleryFigure:
    """Return masks below those they were made from (FCaS Fig. 8), as surfaces seen from the front."""
    names = masks.case_ids[:MOST_TILES]
    parents = [str(masks.row(name)["provenance"]["parents"][0]) for name in names]
    above = [_tile(sources, parent, "surface", f"source {parent}", relative_to) for parent in parents]
    below = [_tile(masks, name, "surface", name, relative_to) for name in names]
    return GalleryFigure(
        title="Masks and what they were made from",
        caption="Above the source, below the mask that was deformed from it; both seen from the front.",
        plane="coronal",
        rows=(tuple(above), tuple(below)),
    )


def template_gallery(made: Dataset, others: Sequence[Dataset], relative_to: Path | None) -> GalleryFigure | None:
    """Return images of one mask under several templates (StructDiff Fig. 5); None where no mask has two.

    Args:
        made: synthetic cases.
        others: where templates are looked for; one that is in none leaves its place empty.
        relative_to: folder of the results file.
    """
    groups: dict[str, dict[str, str]] = {}
    for case_id in made.case_ids:
        facts = made.row(case_id)["provenance"]
        if "template" in facts and facts.get("parents"):
            same = fingerprint([facts["parents"], facts.get("mask")])
            groups.setdefault(same, {}).setdefault(str(facts["template"]), case_id)
    group = max(groups.values(), key=len, default={})
    if len(group) < 2:
        return None
    shown = list(group.items())[: MOST_TILES - 1]
    homes = [next((dataset for dataset in others if name in dataset.rows), None) for name, _ in shown]
    above = [
        None if home is None else _tile(home, name, "image", f"template {name}", relative_to)
        for home, (name, _) in zip(homes, shown, strict=True)
    ]
    below = [_tile(made, case_id, "image", f"{case_id}, template {name}", relative_to) for name, case_id in shown]
    mask = _tile(made, shown[0][1], "mask", "the mask of all below", relative_to)
    return GalleryFigure(
        title="One mask under several templates",
        caption="Above the templates, each cut through its own heart; below what the mask becomes under each.",
        rows=((mask, *above), (None, *below)),
    )


def _tile(dataset: Dataset, case_id: str, layer: str, text: str, relative_to: Path | None) -> Tile:
    return Tile.model_validate({"case": pointer(dataset.root, case_id, relative_to), "layer": layer, "text": text})
