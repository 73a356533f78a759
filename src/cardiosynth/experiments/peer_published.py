"""What the papers say of the methods that they compare."""

from typing import NamedTuple

from cardiosynth.experiments.method_tables import PUBLISHED, Published


class Fcas(NamedTuple):
    """A row of FCaS's Table 1: ImageCAS, 750 masks. Of methods without masks only FID is told."""

    ssim: float | None
    rmse: float | None
    lpips: float | None
    fid: float


FCAS = {
    "ha-gan": Fcas(None, None, None, 6.3975),
    "wdm": Fcas(None, None, None, 5.2148),
    "medical-diffusion": Fcas(None, None, None, 7.1284),
    "spade": Fcas(0.8442, 0.1812, 0.0855, 2.9331),
    "controlnet": Fcas(0.8739, 0.1182, 0.0685, 2.0073),
    "t2i-adapter": Fcas(0.8641, 0.1272, 0.0621, 1.9812),
    "diffinfinite": Fcas(0.4076, 0.6984, 0.5943, 7.4952),
    "pix2pix-3d": Fcas(0.7499, 0.3706, 0.1366, 3.9607),
    "med-ddpm": Fcas(0.8561, 0.2437, 0.1038, 3.2129),
    "maisi": Fcas(0.9110, 0.0836, 0.0553, 1.6881),
    "spade-targets": Fcas(0.8233, 0.2283, 0.1045, 3.7782),
    "controlnet-targets": Fcas(0.8342, 0.1975, 0.0767, 2.3926),
    "t2i-adapter-targets": Fcas(0.8424, 0.2099, 0.0724, 2.4233),
    "diffinfinite-targets": Fcas(0.3874, 0.7098, 0.6039, 7.8165),
    "pix2pix-3d-targets": Fcas(0.7272, 0.3921, 0.1458, 4.1224),
    "med-ddpm-targets": Fcas(0.8128, 0.3026, 0.1284, 3.7139),
    "maisi-targets": Fcas(0.9072, 0.0954, 0.0572, 1.8214),
    "fcas": Fcas(0.9243, 0.0731, 0.0541, 1.5821),
}
"""By the name of our row; ``-targets`` is without surroundings."""

FQCDM = {
    "MM-WHS MRI": {
        "vqvae": Published(21.59, 73.77, 74.82), "dcgan": Published(26.70, 78.14, 67.44),
        "cyclegan": Published(29.78, 82.08, 60.81), "vqgan": Published(30.41, 84.52, 59.74),
        "ddpm": Published(33.76, 85.66, 53.59), "fqcdm": Published(32.69, 86.15, 49.61),
    },
    "MM-WHS CT": {
        "vqvae": Published(25.60, 72.16, 70.01), "dcgan": Published(32.84, 74.89, 58.34),
        "cyclegan": Published(35.17, 77.62, 53.27), "vqgan": Published(37.18, 80.30, 50.94),
        "ddpm": Published(38.06, 82.72, 43.60), "fqcdm": Published(38.42, 85.77, 41.97),
    },
    "ACDC": {title.lower(): one for title, one in PUBLISHED.items()},
}  # fmt: skip
"""FQCDM's Tables 1 to 3 by data set and method."""
