"""The threat model of a command line: the default, the file, the options, and the margin that the base suggests.

A forgotten record is answered with the runner-up, by a margin. One that the base never shows when it errs is a mark in
itself (THREATS T4), so that the margin, where none is given, is the median of those by which the base loses the labels
of retained records that it answers wrongly.

Source: FORMATS section 3 (``repair``); MATHS 6 (redirect ``misclassify``).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from fractions import Fraction

import numpy as np

from prune_verify.checker.claim import LabelledRows
from prune_verify.checker.network import Network
from prune_verify.checker.region import Domain
from prune_verify.repair.redirect import base_margins
from prune_verify.repair.threat_model import GIVEN, OWN_ERRORS, ThreatModel, default_threat_model, load_threat_model
from prune_verify.request_sets import amounts_of

__all__ = ["asked_threat_model", "margin_note", "margins_of_errors", "with_margin_of_errors"]

_BATCH = 1024
_FEWEST_ERRORS = 20  # below it their median says little
_STEP = 1000  # margins in thousandths of a logit: the claim's is a short decimal
_LEAST = Fraction(1, 10)  # lower margins are lost to what auditors demand (0.05 by default)


def asked_threat_model(options: argparse.Namespace, domain: Domain) -> ThreatModel:
    """The threat model of the default, the file and the options, the later before the earlier.

    Args:
        options: of the verb ``repair``.
        domain: of ``--domain``, or as the data suggest.

    Raises:
        RepairInputError: a file that is no threat model.
        CheckError: an amount that is no decimal.

    """
    model = default_threat_model(domain)
    if options.threat_model is not None:
        model = load_threat_model(options.threat_model, model)
        if options.domain is not None:
            model = replace(model, domain=domain)
    for name in ("cover", "redirect"):
        if getattr(options, name) is not None:
            model = replace(model, **{name: getattr(options, name)})
    if options.margin is not None:
        model = replace(model, margin_from=GIVEN)
    return replace(model, **amounts_of(options))  # type: ignore[arg-type] # all of them are amounts


def margins_of_errors(base: Network, rows: LabelledRows) -> np.ndarray:
    """By how much the base loses the labels of rows that it answers wrongly, in logits: float64 [errors]."""
    parts = [slice(start, start + _BATCH) for start in range(0, len(rows.y), _BATCH)]
    lost = [-base_margins(base, LabelledRows(rows.x[part], rows.y[part])) for part in parts]
    found = np.concatenate([np.empty(0), *lost])
    return np.asarray(found[np.isfinite(found) & (found > 0)])


def with_margin_of_errors(model: ThreatModel, base: Network, retain: LabelledRows | None) -> ThreatModel:
    """The threat model with the median margin of the base's own errors, where that is asked and can be had.

    Args:
        model: the threat model.
        base: the base network.
        retain: the retained set; None for class requests.

    Returns:
        The model; with ``margin_from`` = ``given`` where the margin is not the errors'.

    """
    if model.margin_from != OWN_ERRORS or model.redirect != "misclassify":
        return replace(model, margin_from=GIVEN)
    lost = np.empty(0) if retain is None else margins_of_errors(base, retain)
    if len(lost) < _FEWEST_ERRORS:
        return replace(model, margin_from=GIVEN)
    median = Fraction(int(np.median(lost) * _STEP), _STEP)
    return replace(model, margin=max(median, _LEAST))


def margin_note(model: ThreatModel) -> tuple[str, ...]:
    """Where the margin comes from, for a person, where it was not given."""
    if model.margin_from != OWN_ERRORS:
        return ()
    text = "the median of those by which the base loses the labels of retained records that it answers wrongly"
    return (f"margin {float(model.margin):g}: {text} (--margin sets another)",)
