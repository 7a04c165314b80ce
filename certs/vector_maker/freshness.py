"""Vectors about keys that are bound to networks, countersignatures, older stores and superseded certificates.

Source: certs/SPEC.md section 8; THREATS section 2 "Envelope and keys", T11, T12, T14.
"""

# ruff: noqa: E501 - a row of a table of vectors is one line

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from certs.vector_maker.cases import CERT, OK, Build, Case, Note, refused, undecided, unusable
from certs.vector_maker.owner import Chain, key, policy, sets, sign, trust, trusted
from prune_verify.checker.encoding import canonical_json, sha256_hex

__all__ = ["CASES", "NOTES", "UNPROVED_CASES", "UNPROVED_NOTES"]

_OLD = "earlier.unlearn.json"
_GIVEN = ("--supersedes", _OLD)
_OPENED = (*_GIVEN, "--superseded-forget", "earlier.npz", "--superseded-openings", "openings.json")
_ANOTHER = "ab" * 32
_SUPERSEDES, _BASE = "predicate/supersedes", "predicate/originalModel/sha256"
_BALL = {"kind": "ball", "norm": "linf"}

Change = Callable[[dict[str, Any]], object]


def _bound(*bases: str, **knobs: str) -> Build:
    """The owner's key is bound to networks; ``own`` stands for the base of the certificate."""

    def build(chain: Chain) -> dict[str, bytes]:
        named = tuple(sha256_hex(chain.files["base.onnx"]) if base == "own" else base for base in bases)
        store = trust(trusted("owner", base_models=named or None))
        return {"trust.json": store, "policy.toml": policy(**knobs)}

    return build


def _signed(*names: str, store: bytes, **knobs: str) -> Build:
    """The honest payload, signed by these, before an auditor with this store and these demands."""

    def build(chain: Chain) -> dict[str, bytes]:
        certificate = sign(chain.files["statement.json"], *(key(name) for name in names))
        return {CERT: certificate, "trust.json": store, "policy.toml": policy(**knobs)}

    return build


_AUDITED = trust(trusted("owner"), trusted("auditor", roles=("auditor",)))
_BOTH_ROLES = trust(trusted("owner", roles=("prover", "auditor")), trusted("auditor", roles=("auditor",)))
_ELSEWHERE = trust(trusted("owner"), trusted("auditor", roles=("auditor",), base_models=(_ANOTHER,)))
_COUNTER: dict[str, str] = {"min_auditor_signatures": "1"}


def _earlier(change: Change, *, named: bool = True, signer: str = "owner", **knobs: str) -> Build:
    """An earlier certificate of the owner's beside the honest one, which replaces it."""

    def build(chain: Chain) -> Chain:
        before = chain.statement()
        change(before)
        payload = canonical_json(before)
        document = chain.statement()
        document["predicate"]["supersedes"] = sha256_hex(payload) if named else _ANOTHER
        chain.put(document)
        chain.files[_OLD] = sign(payload, key(signer))
        chain.files["policy.toml"] = policy(**knobs)
        return chain

    return build


def _opened(*, other: bool, **knobs: str) -> Build:
    """The earlier forget set is opened; with ``other`` one of its records has given way to another."""

    def build(chain: Chain) -> Chain:
        from certs.vector_maker.owner import npz

        x, y, others, labels = sets()
        order = np.arange(len(y))[::-1]
        x, y = x[order], y[order]
        if other:
            x[0], y[0] = others[0], labels[0]
        committed = chain.copy().records("forget", x, y).statement()["predicate"]["forgetSet"]
        _earlier(lambda d: d["predicate"].update(forgetSet=committed), **knobs)(chain)
        chain.files["earlier.npz"] = npz(x, y)
        return chain

    return build


def _reference(text: str) -> Change:
    return lambda d: d["predicate"]["request"].update(reference=text)


def _forget_claims(**members: object) -> Change:
    return lambda d: [c.update(members) for c in d["predicate"]["claims"] if c["kind"] == "forget"]


def _size(size: int) -> Change:
    return lambda d: d["predicate"]["forgetSet"].update(size=size)


def _same(_: dict[str, Any]) -> None:
    """The earlier certificate covered the same."""


def _with_class(document: dict[str, Any]) -> None:
    claim = document["predicate"]["claims"][0]
    more = {"id": "C99", "kind": "forget_class", "quantifier": "all-inputs", "region": None, "label": 3}
    document["predicate"]["claims"].append(claim | more)


CASES = [
    Case("OtherOwnersModel", "the key is bound to this base network", _bound("own"), OK),
    Case("OtherOwnersModel", "the key is bound to two base networks, this one among them", _bound(_ANOTHER, "own", require_bound_keys="true"), OK),
    Case("OtherOwnersModel", "the key is bound to another base network", _bound(_ANOTHER), refused("SIGNATURE", _BASE)),
    Case("OtherOwnersModel", "the key is bound to no base network, and the policy wants bound ones", _bound(require_bound_keys="true"), refused("SIGNATURE", _BASE)),
    Case("Countersigned", "an auditor has countersigned, as the policy demands", _signed("owner", "auditor", store=_AUDITED, **_COUNTER), OK),
    Case("Countersigned", "nobody has countersigned", _signed("owner", store=_AUDITED, **_COUNTER), refused("SIGNATURE", f"{CERT}/signatures")),
    Case("Countersigned", "the owner's key has role auditor too, and counts once", _signed("owner", store=_BOTH_ROLES, **_COUNTER), refused("SIGNATURE", f"{CERT}/signatures")),
    Case("Countersigned", "the auditor's key is bound to another base network", _signed("owner", "auditor", store=_ELSEWHERE, **_COUNTER), refused("SIGNATURE", _BASE)),
    Case("Countersigned", "two provers are demanded and one signed", _signed("owner", store=_AUDITED, min_prover_signatures="2"), refused("SIGNATURE", f"{CERT}/signatures")),
    Case("Rollback", "a trust store of version 1, where the policy has seen version 2", lambda _: {"policy.toml": policy(min_trust_version="2")}, unusable("POLICY", "trust.json/version")),
    Case("Superseded", "it replaces an earlier certificate that covered the same", _earlier(_same), OK, _GIVEN),
    Case("Superseded", "it replaces one that covered less", _earlier(_size(3)), OK, _GIVEN),
    Case("Superseded", "the earlier certificate is demanded and not shown", _earlier(_same, require_superseded="true"), undecided("DATA_MISSING")),
    Case("Superseded", "it names another certificate than the one that the auditor holds", _earlier(_same, named=False), refused("POLICY", _SUPERSEDES), _GIVEN),
    Case("Superseded", "the earlier certificate was not signed by a prover of the store", _earlier(_same, signer="stranger"), refused("SIGNATURE", f"{_OLD}/signatures"), _GIVEN),
    Case("Superseded", "the earlier certificate is about another base", _earlier(lambda d: d["predicate"]["originalModel"].update(sha256=_ANOTHER)), refused("SUBJECT", f"{_OLD}/payload/predicate/originalModel/sha256"), _GIVEN),
    Case("Superseded", "the earlier certificate was issued later", _earlier(lambda d: d["predicate"].update(issuedAt="2029-12-02T00:00:00Z")), refused("POLICY", "predicate/issuedAt"), _GIVEN),
    Case("LessCovered", "a record is gone", _earlier(_size(5)), refused("POLICY", _SUPERSEDES), _GIVEN),
    Case("LessCovered", "a record is gone, and the policy lets one be withdrawn", _earlier(_size(5), max_withdrawn="1"), OK, _GIVEN),
    Case("LessCovered", "a class is gone", _earlier(_with_class), refused("POLICY", _SUPERSEDES), _GIVEN),
    Case("LessCovered", "a request is gone from the references", _earlier(_reference('["case 1","case 2"]')), refused("POLICY", _SUPERSEDES), _GIVEN),
    Case("LessCovered", "a record gave way to another one, and both sets are open", _opened(other=True), refused("POLICY", _SUPERSEDES), _OPENED),
    Case("LessCovered", "the same records in another order, and both sets are open", _opened(other=False), OK, _OPENED),
    Case("LessCovered", "the balls are smaller than they were", _earlier(_forget_claims(region=_BALL | {"radius": "0.2"})), refused("POLICY", "predicate/claims (radius of C1 of the earlier certificate)"), _GIVEN),
    Case("LessCovered", "the margin is smaller than it was", _earlier(_forget_claims(margin="0.1")), refused("POLICY", "predicate/claims (margin of C1 of the earlier certificate)"), _GIVEN),
    Case("Skipped", "nobody whom the auditor knows has signed, and the auditor looks at the rest", _signed("stranger", store=_AUDITED), undecided("INSECURE"), ("--insecure-skip-signature",)),
    Case("Skipped", "the same with a lie in a claim", _signed("stranger", store=_AUDITED, min_margin="0.1"), refused("POLICY", "predicate/claims/C1/margin"), ("--insecure-skip-signature",)),
    Case("Skipped", "the certificate has expired, and the auditor looks at the rest", lambda _: {}, undecided("INSECURE"), ("--at-time", "2040-01-01T00:00:00Z", "--insecure-skip-time")),
]  # fmt: skip

NOTES = {
    "OtherOwnersModel": Note("SIGNATURE", "2 envelope: key of owner A on owner B's model", "Whoever may certify one network certifies another owner's."),
    "Countersigned": Note("CONFUSION", "2 envelope: roles confused; one key under two ids reaching a threshold of two", "An owner countersigns its own certificate."),
    "Rollback": Note("FRESHNESS", "2 log: rollback", "A trust store of before a revocation is handed back, and the revoked key counts again."),
    "Superseded": Note("FRESHNESS", "1 T11", "An older certificate stands beside a newer one, and nobody can say which holds."),
    "LessCovered": Note("FRESHNESS", "1 T12", "The next release forgets to forget: requests, records or terms are dropped without a word."),
    "Skipped": Note("DISPLAY", "3 process: every failure exits non-zero", "What was skipped is read as what was checked."),
}  # fmt: skip


# --- retained records that are not proved ---


def _unproved(*, said: bool, **knobs: str) -> Build:
    """A retained record lies beside a forgotten one: the names of its logits are not the base's."""

    def build(chain: Chain) -> Chain:
        x, y, others, labels = sets()
        others, labels = others.copy(), labels.copy()
        others[7], labels[7] = np.clip(x[2] + np.float32(2**-10), 0, 1), y[2]
        chain.records("retain", others, labels)
        document = chain.statement()
        for claim in document["predicate"]["claims"][2:4] if said else ():
            claim["unknowns"] = [7]
            claim["counts"] |= {"proved": claim["counts"]["total"] - 1, "unknown": 1}
        chain.put(document)
        chain.files["policy.toml"] = policy(required_for_records='["forget", "retain_exact"]', **knobs)
        return chain

    return build


UNPROVED_CASES = [
    Case("Unproved", "one of 41 retained records is not proved, and is named", _unproved(said=True), undecided("UNKNOWN")),
    Case("Unproved", "the policy bears one of 41", _unproved(said=True, min_proved_share="0.97"), OK),
    Case("Unproved", "the policy bears fewer than one of 41", _unproved(said=True, min_proved_share="0.98"), undecided("UNKNOWN")),
    Case("Unproved", "the policy bears one of 41, which the statement hides", _unproved(said=False, min_proved_share="0.97"), refused("PROOF", "predicate/claims/C3/counts")),
]  # fmt: skip

UNPROVED_NOTES = {
    "Unproved": Note("CLAIM", "1 T14", "Records for which nothing is proved are lost in a share or not named."),
}  # fmt: skip
