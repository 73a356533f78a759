"""The one error that is the user's to mend."""


class InputError(ValueError):
    """Something the user gave cannot be used: one sentence that names the file or setting and the mend.

    The command line prints it without a traceback and ends with exit code 2. Every other exception is our
    mistake and keeps its traceback.
    """


def suggest(wrong: str, allowed: list[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for a near miss, else the allowed names, to end an error sentence."""
    import difflib

    near = difflib.get_close_matches(wrong, allowed, n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; allowed are: {', '.join(allowed)}."
