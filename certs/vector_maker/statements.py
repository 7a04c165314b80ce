"""Vectors about what the statement says: a trusted key signs lies (THREATS section 1)."""

# ruff: noqa: E501 - a row of a table of vectors is one line

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from certs.vector_maker.cases import OK, PAYLOAD, Build, Case, Note, at, edit, files, refused, undecided, unusable
from certs.vector_maker.owner import policy
from prune_verify.checker.rules import BINARY32

__all__ = ["CASES", "CLASS_CASES", "CLASS_NOTES", "NOTES", "ONLY_CLASS_CASES"]

_BALL = {"kind": "ball", "norm": "linf"}
_NONCE = "ab" * 16


def _claims(change: Callable[[dict[str, Any]], object], kind: str = "") -> Build:
    """Change every claim, or every one of a kind."""

    def each(document: dict[str, Any]) -> None:
        for claim in document["predicate"]["claims"]:
            if kind in ("", claim["kind"]):
                change(claim)

    return edit(each)


def _drop(member: str, value: str) -> Build:
    def keep(document: dict[str, Any]) -> None:
        claims = document["predicate"]["claims"]
        document["predicate"]["claims"] = [claim for claim in claims if claim[member] != value]

    return edit(keep)


def _radius(kind: str, value: str) -> Build:
    return _claims(lambda c: c.update(region=_BALL | {"radius": value}), kind)


def _counts(place: int, **said: int) -> Build:
    return edit(lambda d: d["predicate"]["claims"][place]["counts"].update(said))


def _where(place: int, member: str) -> str:
    return f"predicate/claims/C{place + 1}/{member}"


def _more_than_there_are(document: dict[str, Any]) -> None:
    for claim in document["predicate"]["claims"][2:4]:
        claim["counts"] |= {"total": 1041, "proved": 1041}


CASES = [
    Case("T2", "one of the sentences that say what is not proved is left out", edit(lambda d: d["predicate"]["nonClaims"].pop(0)), refused("MALFORMED", f"{PAYLOAD}/predicate/nonClaims")),
    Case("T3", "fewer disclosed bits are said than the gates store", at("predicate/patch/disclosedBits", 1), refused("PROOF", "predicate/patch")),
    Case("T3", "fewer disclosed coordinates are said", at("predicate/patch/disclosedCoordinates", 1), refused("PROOF", "predicate/patch")),
    Case("T6", "a needle: the radius of the forget claims is below the policy's", _radius("forget", "0.001"), refused("POLICY", "predicate/claims/C1/region/radius")),
    Case("T6", "radius 0", _radius("forget", "0"), refused("POLICY", "predicate/claims/C1/region/radius")),
    Case("T6", "a negative radius", _radius("forget", "-0.1"), refused("MALFORMED", f"{PAYLOAD}/predicate/claims/0/region/radius")),
    Case("T6", "no region", _claims(lambda c: c.update(region=None), "forget"), refused("PROOF", "claim forget")),
    Case("T6", "the retained radius is below the policy's", _radius("retain_exact", "0.01"), refused("POLICY", "predicate/claims/C3/region/radius")),
    Case("T6", "a radius that the gates do not cover", _radius("forget", "0.2"), refused("PROOF", _where(0, "counts"))),
    Case("T6", "the claim is weakened after the proof: a smaller radius, which the policy still allows, in one arithmetic", at("predicate/claims/1/region/radius", "0.05"), refused("POLICY", "predicate/claims/C2/region/radius")),
    Case("T7", "margin 0", _claims(lambda c: c.update(margin="0"), "forget"), refused("PROOF", "claim/margin")),
    Case("T7", "a negative margin", _claims(lambda c: c.update(margin="-1"), "forget"), refused("PROOF", "claim/margin")),
    Case("T7", "a margin above what the head leaves", _claims(lambda c: c.update(margin="0.2"), "forget"), refused("PROOF", "claim/margin")),
    Case("T7", "no margin", _claims(lambda c: c.update(margin=None), "forget"), refused("PROOF", "claim forget")),
    Case("T8", "a margin that holds in reals and not after rounding in binary32", _claims(lambda c: c.update(margin="0.125"), "forget"), refused("PROOF", "claim/margin")),
    Case("T8", "the same margin in reals only, where tau leaves exactly that much", at("predicate/claims/1/margin", "0.125"), OK),
    Case("T9", "the digest of another patched network", at("subject/0/digest/sha256", "00" * 32), refused("SUBJECT", "subject/0/digest")),
    Case("T9", "the digest of another base", at("predicate/originalModel/sha256", "00" * 32), refused("SUBJECT", "predicate/originalModel/sha256")),
    Case("T9", "another network digest of the base", at("predicate/originalModel/networkDigest", "00" * 32), refused("SUBJECT", "patched.onnx")),
    Case("T9", "another opset than the networks have", at("predicate/semantics/opset", 11), refused("SUBJECT", "patched.onnx")),
    Case("T11", "expired", lambda _: {}, refused("POLICY", "predicate/expiresAt"), ("--at-time", "2040-01-01T00:00:00Z")),
    Case("T11", "the second at which it expires", at("predicate/expiresAt", "2030-01-01T00:00:00Z"), refused("POLICY", "predicate/expiresAt")),
    Case("T11", "issued in the future", at("predicate/issuedAt", "2031-01-01T00:00:00Z"), refused("POLICY", "predicate/issuedAt")),
    Case("T11", "not yet valid", at("predicate/notBefore", "2031-01-01T00:00:00Z"), refused("POLICY", "predicate/notBefore")),
    Case("T11", "ends before it begins", at("predicate/expiresAt", "2029-01-01T00:00:00Z"), refused("MALFORMED", f"{PAYLOAD}/predicate/expiresAt")),
    Case("T11", "older than the policy allows", at("predicate/issuedAt", "2015-01-01T00:00:00Z"), refused("POLICY", "predicate/issuedAt")),
    Case("T11", "a day that does not exist", at("predicate/issuedAt", "2029-02-30T00:00:00Z"), refused("MALFORMED", f"{PAYLOAD}/predicate/issuedAt")),
    Case("T11", "a time with an offset", at("predicate/issuedAt", "2029-12-01T00:00:00+00:00"), refused("MALFORMED", f"{PAYLOAD}/predicate/issuedAt")),
    Case("T11", "a leap second", at("predicate/issuedAt", "2016-12-31T23:59:60Z"), refused("MALFORMED", f"{PAYLOAD}/predicate/issuedAt")),
    Case("T11", "the auditor gave a challenge, the certificate answers none", lambda _: {}, refused("POLICY", "predicate/challenge"), ("--challenge", _NONCE)),
    Case("T11", "another auditor's challenge", at("predicate/challenge", "cd" * 16), refused("POLICY", "predicate/challenge"), ("--challenge", _NONCE)),
    Case("T11", "the auditor's own challenge", at("predicate/challenge", _NONCE), OK, ("--challenge", _NONCE)),
    Case("T11", "the policy requires a challenge and none was given", files(policy__toml=policy(require_challenge="true")), refused("POLICY", "--challenge")),
    Case("T11", "a challenge of too few digits", at("predicate/challenge", "ab"), refused("MALFORMED", f"{PAYLOAD}/predicate/challenge")),
    Case("T12", "no claim about retained records", _drop("kind", "retain_exact"), refused("POLICY", "predicate/claims")),
    Case("T13", "another root of the forget set", at("predicate/forgetSet/root", "00" * 32), refused("SUBJECT", "predicate/forgetSet/root")),
    Case("T13", "another size of the retained set", at("predicate/retainSet/size", 40), refused("SUBJECT", "predicate/retainSet/size")),
    Case("T13", "no forget set, although there are claims about it", at("predicate/forgetSet", None), refused("POLICY", "predicate/forgetSet")),
    Case("T14", "more proved records than there are", edit(_more_than_there_are), refused("PROOF", _where(2, "counts"))),
    Case("T14", "a record is left out of the counts", _counts(0, total=3, proved=3), refused("PROOF", _where(0, "counts"))),
    Case("T14", "records proved by a bound that no bound proved", _counts(2, provedByBound=1), refused("PROOF", _where(2, "counts"))),
    Case("T14", "unknown records, of which none are listed", _counts(0, proved=3, unknown=1), refused("PROOF", _where(0, "counts"))),
    Case("T14", "no claim of locality", _drop("kind", "locality"), refused("POLICY", "predicate/claims")),
    Case("T14", "no claims", at("predicate/claims", []), refused("MALFORMED", f"{PAYLOAD}/predicate/claims")),
    Case("T14", "an assumption that nothing needs", at("predicate/assumptions", ["trust the owner"]), refused("PROOF", "predicate/assumptions")),
    Case("T14", "a quantifier of another kind of claim", at("predicate/claims/2/quantifier", "all-inputs"), refused("MALFORMED", f"{PAYLOAD}/predicate/claims/2/quantifier")),
    Case("T14", "only some of the logits are claimed to stay", at("predicate/claims/2/logits", [0, 1]), refused("PROOF", "claim retain_exact/logits")),
    Case("T14", "another norm of the ball", at("predicate/claims/0/region/norm", "l2"), refused("MALFORMED", f"{PAYLOAD}/predicate/claims/0/region/norm")),
    Case("T16", "records are said to be wrong already that the base answers", _counts(0, alreadyWrong=1), refused("PROOF", _where(0, "counts"))),
    Case("T16", "an index of a record that was wrong already, in the list only", at("predicate/claims/0/alreadyWrong", [{"baseAnswer": 1, "index": 0}]), refused("PROOF", _where(0, "alreadyWrong"))),
    Case("T18", "a conflict in the list that is none", at("predicate/claims/2/conflicts", [0]), refused("PROOF", _where(2, "conflicts"))),
    Case("T23", "a domain of the owner's, half as wide", at("predicate/semantics/domain", {"lower": "0", "upper": "0.5"}), refused("POLICY", "predicate/semantics/domain")),
    Case("T23", "an empty domain", at("predicate/semantics/domain", {"lower": "1", "upper": "0"}), refused("MALFORMED", "domain/0")),
    Case("T23", "an encoding of the owner's", at("predicate/semantics/encodingSha256", "ab" * 32), refused("POLICY", "predicate/semantics/encodingSha256")),
    Case("T23", "another rule for ties", at("predicate/semantics/tieRule", "highest-index"), refused("MALFORMED", f"{PAYLOAD}/predicate/semantics/tieRule")),
    Case("T27", "claims in real arithmetic only", _drop("arithmetic", BINARY32), refused("POLICY", "predicate/claims")),
    Case("T27", "a policy of real arithmetic only never gives VERIFIED", files(policy__toml=policy(arithmetics='["real"]')), undecided("ARITHMETIC")),
    Case("T14", "a request of kind class for a patch of gates", at("predicate/request/kind", "class"), refused("POLICY", "predicate/request/kind")),
    Case("Policy", "the policy demands a wider ball", files(policy__toml=policy(min_forget_radius="0.11")), refused("POLICY", "predicate/claims/C1/region/radius")),
    Case("Policy", "the policy demands a larger margin", files(policy__toml=policy(min_margin="0.06")), refused("POLICY", "predicate/claims/C1/margin")),
    Case("Policy", "the policy demands more retained records", files(policy__toml=policy(min_retain_records="42")), refused("POLICY", "predicate/retainSet")),
    Case("Policy", "the policy demands a kind of claim that is not there", files(policy__toml=policy(required_for_records='["retain_label"]')), refused("POLICY", "predicate/claims")),
    Case("Policy", "a policy that demands nothing", files(policy__toml=policy(required_for_records="[]")), refused("POLICY", "policy")),
    Case("Policy", "a misspelt demand", files(policy__toml=policy().replace(b"min_margin", b"min_margim")), unusable("MALFORMED", "policy.toml/claims/min_margin")),
    Case("Policy", "a demand that is no number", files(policy__toml=policy(min_margin="nan")), unusable("MALFORMED", "policy.toml/claims/min_margin")),
]  # fmt: skip

CLASS_CASES = [
    Case("Honest", "records and a class forgotten in one network", lambda c: c, OK),
    Case("Class", "the claim speaks of another class", _claims(lambda c: c.update(label=2), "forget_class"), refused("PROOF", "claim forget_class/label")),
    Case("Class", "a margin above tau for all inputs", _claims(lambda c: c.update(margin="0.2"), "forget_class"), refused("PROOF", "claim/margin")),
    Case("Class", "the forgotten class's own logit is said to stay", _claims(lambda c: c.update(logits=None), "retain_exact"), refused("PROOF", "claim retain_exact/logits")),
    Case("Class", "no claim that the class is forgotten", _drop("kind", "forget_class"), refused("POLICY", "predicate/claims")),
    Case("Class", "no claim that other answers stay", _drop("kind", "retain_other_labels"), refused("POLICY", "predicate/claims")),
    Case("Class", "other answers are said to stay on all inputs, beside gates", _claims(lambda c: c.update(quantifier="all-inputs"), "retain_other_labels"), refused("PROOF", "claim retain_other_labels/quantifier")),
    Case("Class", "labels of balls are said to stay although a class is forgotten", _claims(lambda c: c.update(kind="retain_label"), "retain_exact"), refused("PROOF", "claim retain_label")),
    Case("Class", "a class is forgotten by the way", at("predicate/request/kind", "records"), refused("POLICY", "predicate/request/kind")),
    Case("Class", "records are forgotten by the way", at("predicate/request/kind", "class"), refused("POLICY", "predicate/request/kind")),
    Case("Class", "the summary names another class", at("predicate/patch/forgottenClasses", [2]), refused("PROOF", "predicate/patch")),
]  # fmt: skip

ONLY_CLASS_CASES = [
    Case("Honest", "a class forgotten for all inputs, without any record", lambda c: c, OK),
    Case("Class", "other answers are said to stay outside supports, where there are none", _claims(lambda c: c.update(quantifier="domain-outside-supports"), "retain_other_labels"), refused("PROOF", "claim retain_other_labels/quantifier")),
    Case("Class", "a request of records for a class cap", at("predicate/request/kind", "records+class"), refused("POLICY", "predicate/forgetSet")),
]  # fmt: skip

NOTES = {
    "T2": Note("MEANING", "1 T2", "A reader takes output suppression for removal."),
    "T3": Note("MEANING", "1 T3", "The patch tells more of the forgotten record than the certificate says."),
    "T6": Note("POLICY", "1 T6", "Only the exact record, or nothing, is forgotten: one changed pixel brings the answer back."),
    "T7": Note("PROOF", "1 T7", "A tie, or no margin, counts as forgotten."),
    "T8": Note("PROOF", "1 T8", "What holds in real numbers is claimed of the floating-point program."),
    "T9": Note("BINDING", "1 T9", "One network is certified and another one is deployed."),
    "T11": Note("FRESHNESS", "1 T11", "An old certificate, or one for somebody else, is shown again."),
    "T12": Note("POLICY", "1 T12", "What is not claimed anew in the next release is no longer guaranteed."),
    "T13": Note("BINDING", "1 T13", "The owner shows other records than those that were committed to."),
    "T14": Note("PROOF", "1 T14", "Counts, kinds or parameters are believed instead of recomputed, and a weak certificate passes for a strong one."),
    "T16": Note("PROOF", "1 T16", "Records that the base never answered count as forgotten."),
    "T18": Note("PROOF", "1 T18", "Retained records inside a gate vanish in an average."),
    "T23": Note("POLICY", "1 T23", "The owner chooses where the claims speak."),
    "T27": Note("POLICY", "1 T27", "A network that tells real arithmetic from floats passes."),
    "Policy": Note("POLICY", "1 T14", "The auditor's demands are read loosely, or not at all."),
}  # fmt: skip

CLASS_NOTES = {"Class": Note("PROOF", "1 T14", "A claim about a class says more than the cap does.")}
