"""What every test shares: few threads, shapes checked, and where real data lies."""

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

os.environ.setdefault("OMP_NUM_THREADS", "1")

# Every shape annotation is enforced under test. The command line is read by cyclopts and the settings by pydantic,
# which look at the annotations themselves.
CHECKED = [
    *(f"cardiosynth.core.{name}" for name in ("case", "intensity", "labels", "picture", "random", "store", "volume")),
    *(f"cardiosynth.{name}" for name in ("metrics", "training", "data", "anatomy", "autoencoder", "diffusion")),
    *(f"cardiosynth.{name}" for name in ("sampling", "synthesis", "segmentation", "evaluation", "report")),
    *(f"cardiosynth.{name}" for name in ("baselines", "recipes", "experiments")),
]
install_import_hook(CHECKED, "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

REAL_DATA = "CARDIOSYNTH_REAL_DATA"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images, from the environment or beside the repository; the test skips without it."""
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "real"
    folder = Path(os.environ.get(REAL_DATA, beside))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set {REAL_DATA} to the folder that holds it")
    return folder


def _fails_in_ci(report: pytest.TestReport | pytest.CollectReport) -> None:
    # A machine that installs every extra must not pass by skipping what needs one.
    if os.environ.get("CARDIOSYNTH_CI") and report.skipped and "extra" in str(report.longrepr):
        report.outcome = "failed"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    report = yield
    _fails_in_ci(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    report = yield
    _fails_in_ci(report)
    return report
