"""Numbers and pictures of what was made."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from cardiosynth.cli.app import Json, app, progress
from cardiosynth.core.progress import say


@app.command(sort_key=7)
def evaluate(
    real: Path,
    synthetic: Path,
    /,
    *,
    out: Path,
    judge: Path | None = None,
    training: Path | None = None,
    extractors: Annotated[list[str] | None, Parameter(name="--extractor")] = None,
    lpips: Path | None = None,
    crop: Literal["image", "heart"] = "image",
    seed: int = 0,
    device: str = "cpu",
    json: Annotated[bool, Json] = False,
) -> None:
    """Compare synthetic with real cases and write a results file. Run it again to go on after a stop.

    Args:
        real: dataset folder of real cases that took no part in training.
        synthetic: dataset folder of synthetic cases.
        out: results file to write (JSON), for cardiosynth report.
        judge: run of a segmenter that took no part in making the synthetic cases: compares its features of both and
            finds the masks in both.
        training: dataset folder that the generator learned from, to look for copies.
        extractors: KIND=FILE, a released network whose features are compared too: radimagenet, medicalnet (volumes) or
            inception; once for each. Nothing stands in for them.
        lpips: file with LPIPS's weights, lpips.LPIPS(net="vgg").state_dict() or "alex"; nothing stands in for it.
        crop: what of the images is compared as sets: image, or heart, the box of the target structures.
        seed: of what is drawn: pairs, halves, bootstrap.
        device: cpu or cuda, for the networks.
        json: progress as JSON lines.
    """
    progress(json)
    import shlex
    import shutil
    import time

    from cardiosynth.data.dataset import read_dataset
    from cardiosynth.evaluation.extraction import SampleSettings
    from cardiosynth.evaluation.results import Stage, with_stage, write_results
    from cardiosynth.evaluation.sets import read_comparison
    from cardiosynth.evaluation.suite import evaluate as run

    keep = out.with_name(f".{out.name}.parts")
    comparison = read_comparison(
        judge, training, lpips, SampleSettings(crop=crop, seed=seed), keep, device, extractors or ()
    )
    start = time.monotonic()
    results = run(read_dataset(real), read_dataset(synthetic), relative_to=out.parent, comparison=comparison)
    said = {"judge": judge, "training": training, "lpips": lpips, "crop": crop, "seed": seed, "device": device}
    options = [word for name, value in said.items() if value is not None for word in (f"--{name}", value)]
    options += [word for text in extractors or () for word in ("--extractor", text)]
    command = shlex.join(map(str, ["cardiosynth", "evaluate", real, synthetic, "--out", out, *options]))
    stage = Stage(name="evaluate", seconds=time.monotonic() - start, command=command)
    write_results(with_stage(results, stage), out)
    shutil.rmtree(keep, ignore_errors=True)
    say(f"{out} written; cardiosynth report {out} --out {out.with_suffix('.html')} shows it.", results=str(out))


@app.command(sort_key=8)
def report(results: Path, /, *, out: Path, files: Path | None = None, json: Annotated[bool, Json] = False) -> None:
    """Turn a results file into one self-contained HTML page.

    Args:
        results: a file written by cardiosynth evaluate, segment or demo.
        out: the HTML file to write.
        files: folder for its charts as SVG and PNG, its pictures as PNG, and its tables as CSV and LaTeX.
        json: progress as JSON lines.
    """
    progress(json)
    from cardiosynth.evaluation.results import read_results
    from cardiosynth.report.html import write_report

    found = read_results(results)
    write_report(found, out, relative_to=results.parent)
    if files is not None:
        from cardiosynth.report.files import write_files

        say(f"{len(write_files(found, files, results.parent))} files in {files}", files=str(files))
    say(f"Open {out}", report=str(out))
