"""The command line: one function per verb. Heavy packages are imported inside the verbs, so that --help is quick.

Exit codes: 0 done, 2 the input cannot be used (one sentence says why and what to do), 1 our mistake (a traceback).
"""

import sys

from cyclopts import CycloptsError

from cardiosynth.cli import (  # noqa: F401  (each module adds its verbs)
    annotation,
    data,
    experiments,
    export,
    judging,
    machine,
    segmentation,
    synthesis,
    weights,
)
from cardiosynth.cli.app import app
from cardiosynth.core.errors import InputError
from cardiosynth.core.progress import say


def main(tokens: list[str] | None = None) -> None:
    """Run one verb and end the process with its exit code."""
    try:
        app(tokens, exit_on_error=False, print_error=True, result_action="return_value")
    except CycloptsError:
        sys.exit(2)
    except InputError as error:
        print(f"cardiosynth: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except KeyboardInterrupt:
        say("Stopped. The same command goes on from here.")
        sys.exit(130)
