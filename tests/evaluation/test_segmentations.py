import math
from dataclasses import replace

import numpy as np

from cardiosynth.core.labels import CARDIAC_CT
from cardiosynth.evaluation.results import Spread
from cardiosynth.evaluation.segmentations import (
    arms_figure,
    compare_segmentation,
    connectivity_table,
    dice_table,
    distance_table,
)


def broken_vessel(heart) -> np.ndarray:
    mask = heart("a").required_mask().copy()
    mask[0, 2, 2, 6] = 0
    return mask


def test_the_truth_agrees_with_itself(heart):
    found = compare_segmentation(heart("a").required_mask(), heart("a"))
    vessel = found["coronary_artery"]
    assert (vessel.dice, vessel.rdice_symmetric, vessel.hausdorff95_mm, vessel.missed) == (1, 1, 0, 0)
    assert (vessel.surface_dice, vessel.centerline_overlap, found["left_ventricle"].surface_dice) == (1, 1, 1)
    assert math.isnan(found["left_ventricle"].centerline_overlap)
    assert math.isnan(found["left_atrium"].dice)
    assert "spine" not in found


def test_a_gap_shows_in_the_connectivity(heart):
    vessel = compare_segmentation(broken_vessel(heart), heart("a"))["coronary_artery"]
    assert vessel.dice == 14 / 15
    assert (vessel.pieces, vessel.true_pieces, vessel.largest) == (2, 1, 4 / 7)
    assert vessel.true_largest == 1
    assert vessel.missed == 0  # the label table expects two coronary trees, and the gap is one voxel


def test_the_centerline_of_a_vessel_is_followed_and_that_of_a_chamber_is_not(heart):
    found = compare_segmentation(broken_vessel(heart), heart("a"))
    assert found["coronary_artery"].cl_dice == 14 / 15  # one voxel wide, it is its own centerline
    assert math.isnan(found["left_ventricle"].cl_dice)


def test_the_radius_is_the_tolerance_of_rdice_surfaces_and_centerlines(heart):
    aside = np.roll(heart("a").required_mask(), 1, axis=1)  # one voxel of 2 mm
    found = {radius: compare_segmentation(aside, heart("a"), radius)["coronary_artery"] for radius in (1.9, 2.0)}
    assert [each.rdice_symmetric for each in found.values()] == [0, 1]
    assert [each.rdice_literal for each in found.values()] == [0, 0]
    assert [each.surface_dice for each in found.values()] == [0, 1]
    assert [each.centerline_overlap for each in found.values()] == [0, 1]


def test_without_a_voxel_size_nothing_is_measured_in_mm(heart):
    found = compare_segmentation(broken_vessel(heart), heart("a", spacing_known=False))["coronary_artery"]
    assert found.dice == 14 / 15
    assert math.isnan(found.hausdorff95_mm)
    assert math.isnan(found.rdice_symmetric)
    assert math.isnan(found.surface_dice)
    assert math.isnan(found.centerline_overlap)


def arms(heart) -> dict:
    whole = compare_segmentation(heart("a").required_mask(), heart("a"))
    nothing = compare_segmentation(np.zeros((1, 16, 16, 16), np.uint8), heart("a"))
    return {"real only": [whole, nothing], "synthetic": [whole, whole]}


def test_tables_have_one_column_per_arm_and_the_mean(heart):
    table = dice_table(arms(heart), CARDIAC_CT, "500 steps each.")
    rows = {row[0]: row[1:] for row in table.rows}
    assert [column.title for column in table.columns] == ["structure", "real only", "synthetic"]
    assert rows["left ventricle"] == (Spread(mean=0.5, sd=math.sqrt(0.5), n=2), Spread(mean=1, sd=0, n=2))
    assert rows["left atrium"] == (None, None)
    assert rows["mean over structures"] == rows["left ventricle"]
    assert "2 test cases" in table.protocol
    assert table.protocol.endswith("500 steps each.")


def test_only_an_arm_that_is_better_beyond_chance_is_marked(heart):
    truth = heart("a")
    sound = compare_segmentation(truth.required_mask(), truth)
    worse = {name: replace(agreement, dice=0.5) for name, agreement in sound.items()}
    marked = dice_table({"worse": [worse] * 20, "sound": [sound] * 20}, CARDIAC_CT, "").best
    assert {column for _, column in marked} == {2}
    assert dice_table({"worse": [worse] * 3, "sound": [sound] * 3}, CARDIAC_CT, "").best == ()
    assert dice_table({"sound": [sound] * 20}, CARDIAC_CT, "").best == ()
    far = {name: replace(agreement, hausdorff95_mm=9.0) for name, agreement in sound.items()}
    by_distance = distance_table({"far": [far] * 20, "sound": [sound] * 20}, CARDIAC_CT, "")
    assert {column for _, column in by_distance.best} == {2}, "less is better"


def test_a_missed_structure_has_no_distance_and_n_says_so(heart):
    rows = {row[0]: row[1:] for row in distance_table(arms(heart), CARDIAC_CT, "").rows}
    assert rows["left ventricle"] == (Spread(mean=0, sd=None, n=1), Spread(mean=0, sd=0, n=2))


def test_connectivity_has_the_truth_beside_the_arms(heart):
    table = connectivity_table(arms(heart), CARDIAC_CT.named("coronary_artery"), "")
    pieces = [column.title for column in table.columns].index("pieces")
    rows = {row[0]: row for row in table.rows}
    assert list(rows) == ["truth", "real only", "synthetic"]
    assert rows["truth"][pieces] == Spread(mean=1, sd=0, n=2)
    assert rows["real only"][pieces] == Spread(mean=0.5, sd=math.sqrt(0.5), n=2)


def test_the_figure_keeps_every_case(heart):
    figure = arms_figure(arms(heart), CARDIAC_CT, "500 steps each.")
    assert figure.arms[0].values["left_ventricle"] == (1, 0)
    assert figure.arms[0].values["left_atrium"] == (None, None)
