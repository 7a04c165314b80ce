"""What the tables of ``bench unlearning`` say in sentences: made from the numbers, whichever way they turn out."""

from __future__ import annotations

from prune_verify.bench.unlearning_attacks import LIRA, UNLIKE, interval_text
from prune_verify.bench.unlearning_rows import Rows
from prune_verify.measure.roc import Estimate

__all__ = ["sentences"]

_REDIRECTS = {
    "non-member": "calibrated by networks that never saw the record",
    "non-member, held out": "from other records",
}
_BASE, _RETRAIN = "base", "retrain"
_HALF = 0.5


def sentences(rows: Rows) -> list[str]:
    """The control, whether the base leaks at all, and what each redirect is worth."""
    said = [_control(rows), _power(rows)]
    for method in _REDIRECTS:
        said += _redirect(rows, method)
    return [f"{rows.study.name}: {text}" for text in said]


def _text(found: tuple[Estimate, int]) -> str:
    """An area with its interval, and of how many networks it is the mean."""
    area, count = found
    return f"{interval_text(area)} ({'one network' if count == 1 else f'mean of {count} networks'})"


def _at_chance(found: Estimate) -> bool:
    return found.low <= _HALF <= found.high


def _control(rows: Rows) -> str:
    """Whether attacks are at chance where they must be."""
    one, two = rows.mean(_RETRAIN, LIRA), rows.mean(_RETRAIN, UNLIKE)
    if one is None or two is None:
        return "control: no network was retrained: do not trust this table."
    well = _at_chance(one[0]) and _at_chance(two[0])
    verdict = "are at chance, as they must be" if well else "are NOT at chance: do not trust this table"
    return (
        f"control: on genuine retraining LiRA's AUC is {_text(one)} and that of 'unlike a non-member' {_text(two)}: "
        f"the attacks {verdict}."
    )


def _power(rows: Rows) -> str:
    """Whether the attack can find anything."""
    found = rows.attacked[_BASE].auc(LIRA)
    verdict = "the base remembers, and the attack sees it" if found.low > _HALF else "the attack sees nothing here"
    return f"power: on the base, before unlearning, LiRA's AUC is {interval_text(found)}: {verdict}."


def _redirect(rows: Rows, method: str) -> list[str]:
    """Whether a forgotten record is more conspicuous than after retraining."""
    said = []
    for attack, what in ((UNLIKE, "margins"), ("unlike-outputs", "all logits")):
        ours, theirs = rows.mean(method, attack), rows.mean(_RETRAIN, attack)
        if ours is None or theirs is None:
            return [f"redirect {method}: no patch was found, see the note of its row."]
        if ours[0].low > theirs[0].value:
            verdict = "ABOVE retraining's by more than its interval: forgotten records can be recognised"
        elif ours[0].high < theirs[0].value:
            verdict = "below retraining's by more than its interval: forgotten records are too ordinary"
        else:
            verdict = "not above retraining's by more than its interval"
        said.append(
            f"redirect {method} ({_REDIRECTS[method]}), two-sided attack on {what}: AUC {_text(ours)}, after "
            f"retraining {_text(theirs)}: {verdict}."
        )
    return said
