import pytest

from cardiosynth.data.sources.phantom.patient import draw_patient
from cardiosynth.data.sources.phantom.protocol import draw_protocol
from cardiosynth.data.sources.phantom.source import phantom, phantoms


@pytest.fixture(scope="session")
def cases():
    """Three patients in the default field of view, two protocols."""
    return list(phantoms(3, (48, 48, 48), protocols=2, seed=5))


@pytest.fixture(scope="session")
def whole_chest():
    """One patient in a field of view that holds the chest."""
    return phantom(1, (32, 32, 32), spacing_mm=6.5, seed=5)


@pytest.fixture(scope="session")
def patients():
    """Three patients without lesions."""
    return [draw_patient(index, seed=5, mean_lesions=0.0) for index in range(3)]


@pytest.fixture(scope="session")
def sick_patient():
    """A patient with many plaques."""
    return draw_patient(0, seed=5, mean_lesions=12.0)


@pytest.fixture(scope="session")
def protocol():
    return draw_protocol(0, seed=5)
