import numpy as np
import pytest

from cardiosynth.evaluation.results import Estimate, Table
from cardiosynth.experiments.fqcdm_rows import CODECS, FQCDM, OPPONENTS, STARTS
from cardiosynth.experiments.method_tables import (
    PUBLISHED,
    PUBLISHED_ABLATION,
    agreement,
    codes,
    comparable,
    difference,
    effects,
    kernel_distance,
    mean_of_pairs,
    method_results,
    near_copies,
)

BASE = np.random.default_rng(0).uniform(20, 30, 12)
REAL = {
    "agreement": [
        {"case": f"p{i // 2}-{i}", "reference": f"p{i // 2}-{i}", "patient": f"p{i // 2}", "dice": {"wall": 0.8}}
        for i in range(12)
    ],
    "likeness": [0.3, 0.5],
    "window": "0 to 1000",
    "features": "segmenter f",
}


def measures(gain_db: float = 0.0, dice: float = 0.6, **changes) -> dict:
    """Of twelve slices, two of each of six patients."""
    pairs = [
        {"case": row["case"], "patient": row["patient"], "psnr_db": float(value) + gain_db, "ms_ssim": 0.8}
        for row, value in zip(REAL["agreement"], BASE, strict=True)
    ]
    rows = [{**row, "case": f"s{i}", "dice": {"wall": dice}} for i, row in enumerate(REAL["agreement"])]
    sets = {"KID x 1000": [4.0, 3.0, 5.0], "KID, real halves": 1.0, "FID": 9.0, "FID, real halves": 6.0}
    found = {"pairs": pairs, "sets": sets, "likeness": [0.4], "agreement": rows[::-1], "codes": {}}
    return found | {"copies": {"pictures": {"share": 0.25, "bound": 0.1, "ratio": 0.9}}} | changes


def every_cell() -> dict:
    """Quantizing adds 1 dB, the edge branch 0.5, an image start takes 3 and a noise start 9."""
    gains = {"quantized": 1.0, "continuous": 0.0, "dual": 0.5, "patch": 0.0}
    starts = {"reconstruction": 0.0, "image": -3.0, "noise": -9.0}
    return {
        (f"{codec}-{opponent}", start): {0: measures(gains[codec] + gains[opponent] + starts[start])}
        for codec in CODECS for opponent in OPPONENTS for start in STARTS
    }  # fmt: skip


def row_of(table: Table, name: str) -> dict:
    """Return a row by its columns' titles."""
    cells = next(row for row in table.rows if row[0] == name)
    return {column.title: cell for column, cell in zip(table.columns, cells, strict=True)}


def value(cell: object) -> float:
    assert isinstance(cell, Estimate)
    return cell.value


def test_the_ablation_tells_what_each_part_adds():
    quality, published, ablation, effect = method_results(every_cell(), REAL, 0.588).tables
    found = {row[0]: (row[1], round(value(row[2]), 6)) for row in effect.rows}
    assert found["quantized less continuous, image start"] == (2, 1)
    assert found["dual less patch, noise start"] == (2, 0.5)
    assert found["image start less reconstruction"] == (4, -3)
    assert len(ablation.rows) == 12
    assert row_of(ablation, "quantized, denoised, image start, dual")["published PSNR"] == 37.89
    assert row_of(ablation, "quantized, denoised, noise start, dual")["published PSNR"] is None
    assert row_of(quality, "FQCDM, noise start")["seeds"] == 1
    assert not [row for row in quality.rows if "patch" in str(row[0])], "ablations stand in their own table"
    assert row_of(published, "VQGAN")["PSNR"] == 35.92


def test_another_method_joins_tables_1_to_3_by_its_name():
    tables = method_results({("VQVAE", "noise"): {0: measures()}}, REAL, 0.588).tables
    assert row_of(tables[0], "VQVAE, noise start")["seeds"] == 1
    assert "Table 5" not in [table.title for table in tables]


def test_bicubic_interpolation_is_compared_slice_by_slice_alone():
    pairs = {"pairs": measures()["pairs"]}
    found = {(FQCDM, "noise"): {0: measures()}, ("bicubic-2x", "reconstruction"): {0: pairs}}
    row = row_of(method_results(found, REAL, 0.588).tables[0], "bicubic-2x")
    assert value(row["PSNR"]) == pytest.approx(BASE.mean())
    assert row["KID x 1000"] is row["Dice"] is None


def test_differences_are_those_of_seeds_and_rows_that_are_there():
    cells = {(FQCDM, "reconstruction"): {0: measures(), 1: measures(7)}, (FQCDM, "noise"): {1: measures(5)}}
    pairs = dict(effects())["noise start less reconstruction"]
    there = comparable(cells, pairs)
    assert there == [((FQCDM, "noise"), (FQCDM, "reconstruction"))]
    interval, p = difference(cells, there, "psnr_db")
    assert tuple(interval) == pytest.approx((-2, -2, -2))
    assert p < 0.05, "six patients, all of one sign"
    lone = {("quantized-patch", "noise"): {0: measures()}, ("continuous-patch", "noise"): {1: measures()}}
    assert not comparable(lone, dict(effects())["quantized less continuous, noise start"]), "no seed in common"


def test_cells_are_means_over_seeds():
    two = [measures(), measures(2, dice=0.8)]
    assert mean_of_pairs(two, "psnr_db").value == pytest.approx(BASE.mean() + 1)
    assert value(agreement(two)) == pytest.approx(0.7)
    other = {"KID x 1000": [6.0, 5.0, 9.0]}
    assert kernel_distance([two[0]["sets"], other]) == Estimate(value=5, low=3, high=9)
    assert kernel_distance([{"KID x 1000": None}]) is None
    assert near_copies(two) == pytest.approx((25, 10))
    assert codes(two) is None
    met = codes([measures(codes={"codes": {"met": 900, "count": 1024, "perplexity": 512.4}})])
    assert met == "900 of 1024, as many as 512 met alike"


def test_published_numbers_are_of_all_cells_and_agree_with_each_other():
    cells = {(f"{c}-{o}", latents) for c in CODECS for o in OPPONENTS for latents in ("encoded", "denoised")}
    assert PUBLISHED_ABLATION.keys() == cells
    assert PUBLISHED["FQCDM"][:2] == PUBLISHED_ABLATION[FQCDM, "denoised"][:2]
    assert PUBLISHED["VQGAN"][:2] == PUBLISHED_ABLATION["continuous-patch", "encoded"][:2]
