"""Numbers and pictures of what was made."""

from pathlib import Path
from typing import Annotated

from cardiosynth.cli.app import Json, app, progress
from cardiosynth.core.progress import say


@app.command(sort_key=7)
def evaluate(
    real: Path,
    synthetic: Path,
    /,
    *,
    out: Path,
    json: Annotated[bool, Json] = False,
) -> None:
    """Compare synthetic with real cases and write a results file.

    Args:
        real: dataset folder of real cases.
        synthetic: dataset folder of synthetic cases.
        out: results file to write (JSON), for cardiosynth report.
        json: progress as JSON lines.
    """
    progress(json)
    from cardiosynth.data.dataset import read_dataset
    from cardiosynth.evaluation.results import write_results
    from cardiosynth.evaluation.suite import evaluate as run

    write_results(run(read_dataset(real), read_dataset(synthetic), relative_to=out.parent), out)
    say(f"{out} written; cardiosynth report {out} --out {out.with_suffix('.html')} shows it.", results=str(out))


@app.command(sort_key=8)
def report(results: Path, /, *, out: Path, json: Annotated[bool, Json] = False) -> None:
    """Turn a results file into one self-contained HTML page.

    Args:
        results: a file written by cardiosynth evaluate or demo.
        out: the HTML file to write.
        json: progress as JSON lines.
    """
    progress(json)
    from cardiosynth.evaluation.results import read_results
    from cardiosynth.report.html import write_report

    write_report(read_results(results), out, relative_to=results.parent)
    say(f"Open {out}", report=str(out))
