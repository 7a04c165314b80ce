"""What the tables of ``bench unlearning`` say in sentences: made from the numbers, whichever way they turn out."""

from __future__ import annotations

from prune_verify.bench.unlearning_attacks import LIRA, UNLIKE, interval_text
from prune_verify.bench.unlearning_rows import Rows
from prune_verify.measure.roc import Estimate

__all__ = ["sentences"]

_CALIBRATED = "non-member"
_ALL_LOGITS = "unlike-outputs"


def sentences(rows: Rows) -> list[str]:
    """The control, whether the base leaks at all, and what the calibrated redirect is worth."""
    name = rows.study.name
    return [f"{name}: {text}" for text in (_control(rows), _power(rows), *_redirect(rows))]


def _at_chance(found: Estimate) -> bool:
    return found.low <= 1 / 2 <= found.high


def _control(rows: Rows) -> str:
    """Whether attacks are at chance where they must be."""
    one, two = rows.retrained(LIRA), rows.retrained(UNLIKE)
    well = _at_chance(one) and _at_chance(two)
    verdict = "are at chance, as they must be" if well else "are NOT at chance: do not trust this table"
    return (
        f"control: on genuine retraining LiRA's AUC is {interval_text(one)} and that of 'unlike a non-member' "
        f"{interval_text(two)} (mean of {rows.retrainings}): the attacks {verdict}."
    )


def _power(rows: Rows) -> str:
    """Whether the attack can find anything."""
    found = rows.attacked["base"].auc(LIRA)
    verdict = "the base remembers, and the attack sees it" if found.low > 1 / 2 else "the attack sees nothing here"
    return f"power: on the base, before unlearning, LiRA's AUC is {interval_text(found)}: {verdict}."


def _redirect(rows: Rows) -> list[str]:
    """Whether a forgotten record is more conspicuous than after retraining."""
    attacked = rows.attacked.get(_CALIBRATED)
    if attacked is None:
        return [f"redirect {_CALIBRATED}: no patch was found, see the note of its row."]
    found = []
    for attack, what in ((UNLIKE, "margins unlike a non-member's"), (_ALL_LOGITS, "logits unlike a non-member's")):
        ours, theirs = attacked.auc(attack), rows.retrained_rows(attack)
        if ours.low > theirs.value:
            verdict = "ABOVE retraining's by more than its interval: forgotten records can be recognised"
        elif ours.high < theirs.value:
            verdict = "below retraining's by more than its interval: forgotten records are too ordinary"
        else:
            verdict = "not above retraining's by more than its interval"
        found.append(
            f"redirect {_CALIBRATED} (calibrated), two-sided, {what}: AUC {interval_text(ours)}, after retraining "
            f"{interval_text(theirs)}: {verdict}."
        )
    return found
