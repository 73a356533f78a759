"""Which cases train, validate and test: by patient, so that no patient stands on both sides."""

import re
from collections.abc import Iterable, Mapping

from cardiosynth.core.errors import InputError
from cardiosynth.core.random import named_seed

_MOMENT = re.compile(r"(?i)[_.-]((frame|phase|time|slice|t|s)\d+|ed|es)$")


def patient_of(case_id: str) -> str:
    """Return the case's name without a trailing frame, phase or slice: ``patient001_frame12`` is ``patient001``."""
    while _MOMENT.search(case_id):
        case_id = _MOMENT.sub("", case_id)
    return case_id


def hold_out(case_ids: Iterable[str], count: int) -> tuple[str, ...]:
    """Return the cases that are kept from training, patient by patient, until there are ``count`` or more.

    The order of the patients is that of the hash of their names alone, so every run and every stage keeps the same.

    Args:
        case_ids: names of the cases.
        count: how many are wanted.

    Returns:
        Names, sorted.

    Raises:
        InputError: fewer than two cases would be left.
    """
    case_ids, chosen = tuple(case_ids), []
    for patient in sorted({patient_of(i) for i in case_ids}, key=lambda name: (named_seed(0, "hold out", name), name)):
        if len(chosen) >= count:
            break
        chosen += [case_id for case_id in case_ids if patient_of(case_id) == patient]
    if chosen and len(case_ids) - len(chosen) < 2:
        raise InputError(
            f"{count} held-out cases of {len(case_ids)} leave fewer than two for training (cases of one patient stay "
            "together); hold out fewer or add cases."
        )
    return tuple(sorted(chosen))


def split(case_ids: Iterable[str], fractions: Mapping[str, float], seed: int) -> dict[str, tuple[str, ...]]:
    """Divide cases into named parts, patient by patient, in the order of each patient's hash.

    The result depends on the names and the seed only, not on the order of ``case_ids``.

    Args:
        case_ids: names of the cases.
        fractions: name of the part -> its share of the patients; the shares sum to 1.
        seed: the run's seed.

    Returns:
        Name of the part -> its cases, sorted.

    Raises:
        InputError: the shares do not sum to 1, or a part would stay empty.
    """
    if abs(sum(fractions.values()) - 1) > 1e-6 or min(fractions.values(), default=0) <= 0:
        raise InputError(f"the fractions {dict(fractions)} must be positive and sum to 1; change them.")
    by_patient: dict[str, list[str]] = {}
    for case_id in case_ids:
        by_patient.setdefault(patient_of(case_id), []).append(case_id)
    patients = sorted(by_patient, key=lambda patient: (named_seed(seed, "split", patient), patient))
    parts, start, share = {}, 0, 0.0
    for name, fraction in fractions.items():
        share += fraction
        stop = round(share * len(patients))
        if stop == start:
            raise InputError(f"{len(patients)} patients are too few for a part '{name}' of {fraction:g}; add patients.")
        parts[name] = tuple(sorted(case for patient in patients[start:stop] for case in by_patient[patient]))
        start = stop
    return parts
