"""Cases as an autoencoder alone gives them back: encoded and decoded, nothing sampled."""

from pathlib import Path
from typing import Any

import numpy as np

from cardiosynth.autoencoder.codec import Codec
from cardiosynth.core.case import Case
from cardiosynth.core.intensity import rounded_image
from cardiosynth.core.progress import Progress
from cardiosynth.data.dataset import Dataset, DatasetWriter, read_dataset
from cardiosynth.data.preparation import recorded_preparation


def write_coded(codec: Codec, cases: Dataset, out: Path) -> Dataset:
    """Write the cases under their own names, with decoded images; those that are there already are kept.

    Their rows tell what those of a generator's reconstructions tell: that the image was made, from whose, by what.

    Args:
        codec: the autoencoder.
        cases: with images.
        out: dataset folder.
    """
    facts = {"autoencoder": codec.fingerprint, **recorded_preparation(cases)}
    with (
        DatasetWriter(out, cases.labels, name=out.name, facts=facts) as writer,
        Progress("encode and decode", len(cases)) as progress,
    ):
        for case in cases:
            if not writer.has(case.case_id):
                writer.write(_coded(codec, case))
            progress.update()
    return read_dataset(out)


def _coded(codec: Codec, case: Case) -> Case:
    image = codec.reconstruct(case)
    return case.with_(
        image=rounded_image(image) if case.intensity_unit == "hu" else image.astype(np.float32),
        origin="synthetic",
        provenance={**case.provenance, **_facts(codec, case)},
    )


def _facts(codec: Codec, case: Case) -> dict[str, Any]:
    taught = codec.record.get("perceptual")
    return {
        "parents": [case.case_id], "reference": case.case_id, "source_image": case.case_id,
        "checkpoints": {**({"perceptual": taught} if taught else {}), "autoencoder": codec.fingerprint},
    }  # fmt: skip
