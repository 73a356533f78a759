"""Painted: every structure gets its mean intensity in training, and noise. The smallest method told of masks."""

import numpy as np
import torch

from cardiosynth.baselines.cases import synthetic
from cardiosynth.baselines.method import Method
from cardiosynth.core.random import generator
from cardiosynth.core.store import fingerprint, read_json, write_json


class Painted:
    def __init__(self, terms):
        self.terms = terms

    def fit(self, cases, run):
        if not (run / "means.json").exists():
            image, mask = (np.stack([getattr(case, part) for case in cases]) for part in ("image", "mask"))
            write_json(run / "means.json", {int(code): float(image[mask == code].mean()) for code in np.unique(mask)})
        self.means = {int(code): mean for code, mean in read_json(run / "means.json").items()}

    def generate(self, mask, template, seed):
        intensities = np.array([self.means.get(code, self.means[0]) for code in range(256)])
        noise = torch.randn(mask.mask.shape, generator=generator(seed, "sampling", mask.case_id)).numpy()
        facts = {"checkpoints": {"means": fingerprint(self.means)}, "sampler": None}
        return synthetic(intensities[mask.mask] + 20 * noise, mask, template, seed, facts)


METHOD = Method(
    name="painted", title="Painted", citation="example of docs/adding_a_method.md", spatial_dims=3, conditional=True,
    footnote="no network at all", sizes={"tiny": Painted, "demo": Painted},
)  # fmt: skip
