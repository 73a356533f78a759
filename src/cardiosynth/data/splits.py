"""Which cases train, validate and test: by patient, so that no patient stands on both sides."""

import re
from collections.abc import Iterable, Mapping

from cardiosynth.core.errors import InputError, suggest
from cardiosynth.core.random import named_seed

_MOMENT = re.compile(r"(?i)[_.-]((frame|phase|time|slice|t|s)\d+|ed|es)$")

REST = "rest"
"""Share of the part that takes every patient the others leave."""

Share = float | str
"""Of a part: a fraction below 1, a number of patients, or `REST`."""

PROTOCOLS: Mapping[str, Mapping[str, Share]] = {
    # FCaS 4.1.1: of ImageCAS's 1000 cases 200 train, 50 of the test set are the template library, 750 references.
    "fcas": {"train": 0.2, "test.template": 0.05, "test.reference": 0.75},
    # FCaS 4.1.1: the downstream sets are split 1:4.
    "fcas-downstream": {"train": 0.2, "test": 0.8},
    # FQCDM: 7:2:1. The paper divides slices; here a patient's slices stay together.
    "fqcdm": {"train": 0.7, "validation": 0.2, "test": 0.1},
}
"""The papers' splits by name."""


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


def read_split(text: str) -> dict[str, Share]:
    """Read ``--split``: a protocol's name, or the parts with their shares.

    Args:
        text: e.g. ``fcas``, ``train=0.8,test=0.2``, or in patients ``train=100,test.template=20,test.reference=rest``.

    Raises:
        InputError: neither of these.
    """
    if "=" not in text:
        if text not in PROTOCOLS:
            raise InputError(f"--split {text}: there is no split of this name" + suggest(text, sorted(PROTOCOLS)))
        return dict(PROTOCOLS[text])
    shares: dict[str, Share] = {}
    for entry in text.split(","):
        name, _, share = (word.strip() for word in entry.partition("="))
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or name in shares:
            raise InputError(f"--split {text}: '{name}' cannot name a part; write train=0.8,test=0.2.")
        if share != REST and not re.fullmatch(r"\d+|\d*\.\d+", share):
            raise InputError(f"--split {text}: '{share}' is no share; write 0.8, a number of patients, or {REST}.")
        shares[name] = share if share == REST else float(share) if "." in share else int(share)
    return shares


def split(patients: Iterable[str], shares: Mapping[str, Share], seed: int = 0) -> dict[str, str]:
    """Give every patient to one part, in the order of the hash of their names.

    The result depends on names, shares and seed only, not on the order of ``patients`` nor on how many cases each has.

    Args:
        patients: names, repeated at will.
        shares: name of the part -> its fraction of the patients, their number, or `REST`; see `read_split`.
        seed: of the hash.

    Returns:
        Patient -> part.

    Raises:
        InputError: shares that do not add up to all patients, or a part that would stay empty.
    """
    order = sorted(set(patients), key=lambda patient: (named_seed(seed, "split", patient), patient))
    stops = _stops(shares, len(order))
    parts, start = {}, 0
    for name, stop in stops.items():
        if stop == start:
            raise InputError(f"{len(order)} patients are too few for a part '{name}' of {shares[name]}; add patients.")
        parts |= dict.fromkeys(order[start:stop], name)
        start = stop
    return parts


def fold_of(case_ids: Iterable[str], count: int, seed: int = 0) -> dict[str, int]:
    """Return the fold, 0 .. ``count`` - 1, of every case; the cases of a patient are in one fold.

    Args:
        case_ids: names of the cases.
        count: how many folds; they have as many patients as each other, or one more.
        seed: of the hash of the patients' names.

    Raises:
        InputError: fewer than two folds, or fewer patients than folds.
    """
    case_ids = tuple(case_ids)
    patients = {patient_of(case_id) for case_id in case_ids}
    if not 2 <= count <= len(patients):
        raise InputError(f"{len(patients)} patients cannot be shared out to {count} folds; take 2 to {len(patients)}.")
    folds = split(patients, {str(fold): 1 / count for fold in range(count)}, seed)
    return {case_id: int(folds[patient_of(case_id)]) for case_id in case_ids}


def _stops(shares: Mapping[str, Share], count: int) -> dict[str, int]:
    """Return the number of patients in each part and those before it."""
    numbers = [share for share in shares.values() if not isinstance(share, str)]
    whole = all(isinstance(share, int) for share in numbers)
    if not shares or len(numbers) < len(shares) - 1 or (not whole and any(isinstance(n, int) for n in numbers)):
        raise InputError(f"the split {dict(shares)} is not understood; give fractions, or patients, and one '{REST}'.")
    rest = (count if whole else 1) - sum(numbers)
    given = {name: rest if isinstance(share, str) else share for name, share in shares.items()}
    left = 0 if len(numbers) < len(shares) else rest
    if min(given.values()) <= 0 or abs(left) > 1e-6:
        total = f"{count} patients" if whole else "1"
        raise InputError(
            f"the shares of the split {dict(shares)} must be positive and sum to {total}; change one to '{REST}'."
        )
    stops, total = {}, 0.0
    for name, share in given.items():
        total += share
        stops[name] = round(total if whole else total * count)
    return stops
