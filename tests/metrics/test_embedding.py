import numpy as np
import pytest

from cardiosynth.metrics.embedding import affinities, divergence, tsne


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Three clouds in ten dimensions, 15 rows each."""
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(10 * i, 1, (15, 10)) for i in range(3)])


@pytest.fixture(scope="module")
def points(rows: np.ndarray) -> np.ndarray:
    return tsne(rows, 5)


def test_rows_of_equal_distance_see_each_other_alike():
    seen = affinities(np.eye(5), 4)
    assert seen == pytest.approx((1 - np.eye(5)) / 20)


def test_every_row_sees_as_many_others_as_the_perplexity_says(rows):
    """By the definition: 2 to the entropy, in bits, of what a row of a regular ring sees."""
    turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    seen = 24 * affinities(np.stack([np.cos(turns), np.sin(turns)], 1), 6)
    entropy = -(seen * np.log2(seen.clip(1e-300))).sum(1)
    assert 2**entropy == pytest.approx(6, rel=1e-6)
    assert affinities(rows, 5).sum() == pytest.approx(1)


def test_neighbors_stay_neighbors(rows, points):
    cloud = np.arange(45) // 15
    squares = ((points[:, None] - points[None]) ** 2).sum(-1) + np.diag(np.full(45, np.inf))
    nearest = squares.argsort(1)[:, :5]
    assert (cloud[nearest] == cloud[:, None]).all()
    assert divergence(points, affinities(rows, 5)) < 0.5 * divergence(rows[:, :2], affinities(rows, 5))


def test_the_same_rows_give_the_same_points_wherever_they_lie(rows, points):
    assert np.array_equal(tsne(rows, 5), points)
    assert points.mean(0) == pytest.approx(0, abs=1e-9)


def test_it_is_as_good_as_another_implementation(rows, points):
    """scikit-learn's exact method reaches no clearly smaller divergence."""
    sklearn = pytest.importorskip("sklearn.manifold", reason="scikit-learn is not installed")
    other = sklearn.TSNE(perplexity=5, method="exact", init="pca", random_state=0, max_iter=500).fit_transform(rows)
    target = affinities(rows, 5)
    assert divergence(points, target) < 1.1 * divergence(other.astype(np.float64), target)


def test_few_rows_are_points_too():
    assert np.isfinite(tsne(np.array([[0.0, 1.0], [2.0, 3.0]]))).all()
    assert np.isfinite(tsne(np.ones((4, 3)))).all()
