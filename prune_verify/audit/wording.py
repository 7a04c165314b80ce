"""The sentences of the report: claims, codes and non-claims in words that are no stronger than the proofs.

Source: MATHS 2 (claims) and 6 (what is not proved); STYLE "Words" (never "erased", never "certified removal").
"""

from __future__ import annotations

from prune_verify.checker.verdict import REJECTED, UNDECIDED, VERIFIED, Check, ClaimVerdict, Verdict

__all__ = [
    "ALREADY_WRONG_NOTE",
    "ALWAYS_UNSAID",
    "ARITHMETIC_NOTE",
    "CONFLICT_NOTE",
    "HOW_TO_READ",
    "VERDICT_SENTENCES",
    "arithmetic_words",
    "claim_sentence",
    "code_sentence",
    "heading_of",
    "method_words",
    "outcome_words",
    "percent",
    "reason",
    "region_words",
]

VERDICT_SENTENCES = {
    VERIFIED: (
        "The checker derived every claim below again from the files themselves, and they meet what the "
        "auditor's policy demands."
    ),
    REJECTED: "Do not rely on this certificate. A check failed, so nothing that it states may be taken as shown.",
    UNDECIDED: (
        "Do not treat this as verified. No check failed, but at least one thing that matters could not be decided."
    ),
}

_CODES = {
    "E_MALFORMED": "A file is not of the form that the format demands.",
    "E_UNSUPPORTED": "A file is of a version, type or operator that this checker does not know.",
    "E_SIGNATURE": "No acceptable signature: a wrong key, changed bytes, or too few signers.",
    "E_KEYID": "A signature names another key than the one that made it.",
    "E_SUBJECT": "A file is not the one that the certificate speaks of.",
    "E_POLICY": "The certificate proves less than the auditor's policy demands.",
    "E_ASSUMPTION": "The result would rest on an assumption that the auditor's policy does not permit.",
    "E_PROOF": "A claim does not follow from the files and the evidence.",
    "E_LIMIT": "A limit of size, depth, time or memory was reached.",
    "E_DATA_MISSING": "Records or openings that a claim needs were not given to the checker.",
    "E_UNKNOWN": "At least one claim is neither proved nor refuted.",
}

_SENTENCES = {
    "forget": (
        "On every input within {radius} of a forgotten record, the patched network does not answer the "
        "record's label: another label leads it by at least {margin}."
    ),
    "retain_exact": (
        "On every input within {radius} of a retained record, the outputs of the patched network{logits} are "
        "exactly those of the base network."
    ),
    "retain_label": (
        "On every input within {radius} of a retained record, the patched network answers the label that the "
        "base answers."
    ),
    "retain_close": (
        "On every input within {radius} of a retained record, no output of the patched network differs from "
        "the base's by more than {delta}."
    ),
    "band": (
        "On every input within {radius} of a forgotten record, the lead of the record's label over the best other "
        "label stays {band}."
    ),
    "minimality": (
        "No gate of the patch could do with fewer intervals: every box that holds the forgotten records' balls of "
        "radius {radius} and is separated from the retained balls as stated ({cover}) has at least as many."
    ),
    "locality": (
        "Everywhere in the stated domain outside the declared supports of the patch, the outputs of the "
        "patched network{logits} are exactly those of the base network."
    ),
    "forget_class": (
        "Whatever the input, as long as the outputs are finite, the patched network never answers label "
        "{label}: another label leads it by at least {margin}."
    ),
    "retain_other_labels": (
        "Whatever the input, where the base answers another label than {label} the patched network answers "
        "the same (where the patch has gates: outside their supports)."
    ),
}

ALWAYS_UNSAID = (
    (
        "It does not say that the record's influence was removed from the weights. An answer is suppressed: the "
        "weights may still depend on the record, and with the weights in hand the answer may be brought back."
    ),
    (
        "It is not an (epsilon, delta) guarantee and does not say that the network equals one retrained "
        "without the record. A retrained network would often still answer the record's label."
    ),
    (
        "It says nothing about inputs outside the stated regions, and nothing about records other than those "
        "of the committed sets."
    ),
    (
        "It does not say that nobody can tell that a record was forgotten: a forced change of answer can "
        "itself be noticed."
    ),
    "Membership inference, relearning and disclosure may be measured; measurements are never proofs.",
    (
        "It speaks of the file with the stated digest, run in 32-bit floating point with finite outputs. It "
        "does not cover reduced or mixed precision (TF32, bf16, fp16, int8), Winograd or FFT convolutions, "
        "rewrites of the weights, or whatever is really served at an endpoint."
    ),
    (
        "It does not say that the sets are the right ones: who chose the forgotten and the retained records "
        "is outside the proof."
    ),
)

HOW_TO_READ = (
    (
        "Start with the verdict. Only VERIFIED means that the claims hold; UNDECIDED is not a weaker yes, and"
        " REJECTED means that nothing here may be relied upon."
    ),
    (
        "Then read the claims, and read what they do not say. A claim is a statement about ALL inputs of a "
        "region, which the checker derived again by exact comparison: it is neither a sample nor a statistic."
        " Conflicts are retained records that could not be told apart from a forgotten one; they are counted,"
        " never averaged away."
    ),
    (
        "\u201cWithin 0.1 of a record\u201d means that each number of the input differs from the record's by at most "
        "0.1, all numbers at once."
    ),
    (
        "Then check that the request, the domain and the radii are what you asked for: a proof about a "
        "smaller region proves less."
    ),
)

ARITHMETIC_NOTE = (
    "Float32 program: the claim holds for the program that runs, whatever the order of its sums. Exact real "
    "numbers: it holds for the network as mathematics, not for the program. Exact comparisons: the checker "
    "rebuilt the patched network from the base and the patch's parameters and compared numbers in the files. "
    "Linear relaxation: the checker recomputed sound bounds from hints that it need not trust."
)

ALREADY_WRONG_NOTE = (
    "Already wrong: forgotten records that the base network did not answer with their label in the first "
    "place. They are counted apart and never as newly forgotten."
)
CONFLICT_NOTE = (
    "Conflict: a retained record that the patch could not tell apart from a forgotten one, so its answer may "
    "change. The auditor's policy says how many are acceptable."
)

_ARITHMETIC = {
    "real": "exact real numbers",
    "ieee754-binary32": "float32 program",
}
_METHODS = {
    "structural": "exact comparisons",
    "relaxation": "linear relaxation",
    "relaxation+smt": "linear relaxation and SMT",
    "covering-dual": "dual of a covering problem",
    "shift-point": "a point that any additive patch must shift as much",
    "identity": "values followed through the network",
}
_HEADINGS = {
    "forget": "Forgotten records",
    "retain_exact": "Retained records, exact outputs",
    "retain_label": "Retained records, same label",
    "retain_close": "Retained records, close outputs",
    "locality": "No change elsewhere",
    "forget_class": "Forgotten class",
    "retain_other_labels": "Other labels kept",
    "band": "Imitating a non-member",
    "minimality": "Minimal patch",
}


def heading_of(kind: str) -> str:
    """A short name for a kind of claim."""
    return _HEADINGS.get(kind, f"Claim of kind {kind}")


def _stated(value: object, words: str) -> str:
    return words if value is None else str(value)


def _band_words(value: object) -> str:
    if isinstance(value, dict):
        return f"between {value.get('lower')} and {value.get('upper')}"
    return "between the ends that patch.json gives for the gate of the record, up to the rounding of one addition"


def _cover_words(value: object) -> str:
    if isinstance(value, dict):
        return f"by {value.get('count')} of its intervals, retained radius {value.get('retainedRadius')}"
    return "cover and radius"


def claim_sentence(kind: str, stated: dict[str, object]) -> str:
    """What a claim says, in one sentence.

    Args:
        kind: as in the certificate.
        stated: the claim's members that were found: radius, margin, delta, band, cover, label, logits.

    Returns:
        A sentence in plain text; a kind without a sentence is named as such.

    """
    sentence = _SENTENCES.get(kind)
    if sentence is None:
        return f"A claim of kind {kind}, for which this report has no sentence."
    logits = stated.get("logits")
    return sentence.format(
        radius=_stated(stated.get("radius"), "the stated radius"),
        margin=_stated(stated.get("margin"), "the stated margin"),
        delta=_stated(stated.get("delta"), "the stated amount"),
        band=_band_words(stated.get("band")),
        cover=_cover_words(stated.get("cover")),
        label=_stated(stated.get("label"), "the forgotten class"),
        logits=f" for labels {', '.join(str(v) for v in logits)}" if isinstance(logits, list | tuple) else "",
    )


def arithmetic_words(name: str) -> str:
    """What the arithmetic of this name means."""
    return _ARITHMETIC.get(name, name)


def region_words(region: str) -> str:
    """Where a claim holds, from the region in the checker's own phrase."""
    kind, _, radius = region.rpartition(" ")
    return f"within {radius} in every number" if kind == "ball linf" else region


def method_words(name: str) -> str:
    """What the proof method of this name is."""
    return _METHODS.get(name, name)


def outcome_words(claim: ClaimVerdict) -> tuple[str, str]:
    """A claim's result as (tone, words); the tone is ``good``, ``warn`` or ``bad``."""
    if claim.refuted:
        return "bad", "Refuted"
    if claim.proved + claim.conflict != claim.total or claim.unknown or not claim.total:
        return "warn", "Not proved for all"
    if claim.conflict:
        plural = "" if claim.conflict == 1 else "s"
        return "warn", f"Proved except {claim.conflict:,} conflict{plural}"
    return "good", "Proved for all" if claim.total > 1 else "Proved"


def reason(verdict: Verdict) -> Check | None:
    """The first check that decided against VERIFIED: a failure before what is merely open."""
    for status in ("FAIL", "UNDECIDED", "SKIP"):
        for check in verdict.checks:
            if check.status == status:
                return check
    return None


def code_sentence(code: str) -> str:
    """What a code means, or nothing for a code without a sentence."""
    return _CODES.get(code, "")


def percent(part: int, whole: int) -> str:
    """``part`` of the ``whole`` in percent with two digits, or a dash for a share of nothing."""
    return f"{100 * part / whole:.2f} %" if whole else "\u2013"
