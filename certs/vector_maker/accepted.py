"""Conformance cases that must be VERIFIED: what a checker that is stricter than the specification refuses.

Every family, network form, record format, algorithm and option, and the auditor's demands met exactly.
"""

# ruff: noqa: E501 - a row of a table is one line

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from certs.vector_maker.bases import FORMS, renumbered
from certs.vector_maker.cases import CERT, OK, Build, Case, Files, at, demand, edit, files, then
from certs.vector_maker.folders import DATA, Folder
from certs.vector_maker.owner import AT_TIME, EXPIRES, ISSUED, Chain, key, sets, sign, structural, trust, trusted
from certs.vector_maker.proofs import patched_problem, to_z3
from certs.vector_maker.tables import as_csv, as_idx, csv_words, encoded, idx_words, table
from prune_verify.checker.bounded_claims import decide_bounded
from prune_verify.checker.claim import Claim
from prune_verify.checker.claim_json import parse_claim
from prune_verify.checker.encoding import canonical_json, sha256_hex
from prune_verify.checker.patch import JointPatch
from prune_verify.checker.patch_json import parse_patch
from prune_verify.checker.rules import REAL

__all__ = ["accepted", "already_wrong", "conflict_of_forty", "signed_by"]

F = np.float32
NOW = datetime.strptime(AT_TIME, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_NONCE = "5eed" * 16
_LAST = (EXPIRES - _SECOND).strftime("%Y-%m-%dT%H:%M:%SZ")
_FIRST = ISSUED.strftime("%Y-%m-%dT%H:%M:%SZ")
_PATCH = "evidence/patch.json"
_OLDEST_OPSET = 7


def signed_by(*names: str, store: bytes) -> Build:
    """The honest payload signed by others, under a trust store that lists what it lists."""

    def build(chain: Chain) -> Files:
        keys = [key(name, "p256" if name.startswith("ecdsa") else "ed25519") for name in names]
        return {CERT: sign(chain.files["statement.json"], *keys), "trust.json": store}

    return build


def _other_base(base: bytes) -> Build:
    """The whole chain for another base; trust store, policy, records and openings are the honest ones."""
    return lambda _: structural("records", base_bytes=base)


def _moved(name: str, target: str) -> Build:
    return lambda chain: {name: {"absent": True}, target: chain.files[name]}


def already_wrong(chain: Chain) -> Chain:
    """One of the four forget records under a label that the base does not answer, said so."""
    x, y, _, _ = sets()
    wrong = y.copy()
    wrong[0] = (y[0] + 1) % 4
    patch = _parsed(chain)
    gates = (replace(patch.gates[0], label=int(wrong[0])), *patch.gates[1:])
    chain.deploy(replace(patch, gates=gates)).records("forget", x, wrong)
    document = chain.statement()
    for claim in document["predicate"]["claims"][:2]:
        claim["counts"]["alreadyWrong"] = 1
        claim["alreadyWrong"] = [{"index": 0, "baseAnswer": int(y[0])}]
    return chain.put(document)


def conflict_of_forty(chain: Chain) -> Chain:
    """Forty retained records, one of them inside a gate, said so."""
    x, y, others, labels = sets()
    rows, answers = others[:40].copy(), labels[:40].copy()
    rows[7], answers[7] = np.clip(x[2] + F(2**-10), 0, 1), y[2]
    chain.records("retain", rows, answers)
    document = chain.statement()
    for claim in document["predicate"]["claims"][2:4]:
        claim["conflicts"] = [7]
        claim["counts"] |= {"total": 40, "proved": 39, "conflict": 1}
    return chain.put(document)


def _parsed(chain: Chain) -> JointPatch:
    found = parse_patch(chain.files[_PATCH], _PATCH).patch
    if not isinstance(found, JointPatch):
        raise TypeError(found)
    return found


def _deployed(change: Callable[[JointPatch], JointPatch]) -> Build:
    return lambda chain: chain.deploy(change(_parsed(chain)))


def _claims(change: Callable[[list[Any]], object]) -> Build:
    return edit(lambda document: change(document["predicate"]["claims"]))


def _only_binary32(document: dict[str, Any]) -> None:
    predicate = document["predicate"]
    predicate["claims"] = [claim for claim in predicate["claims"] if claim["arithmetic"] != REAL]
    predicate["semantics"]["arithmetic"] = ["ieee754-binary32"]


def _per_coordinate(document: dict[str, Any]) -> None:
    document["predicate"]["semantics"]["domain"] = {"lower": ["0"] * 64, "upper": ["1"] * 64}


def _measured(document: dict[str, Any]) -> None:
    document["predicate"]["measurements"] = [
        {
            "kind": "accuracy",
            "value": "0.975",
            "interval": ["0.96", "0.99"],
            "command": "prune-verify measure accuracy",
            "seed": 2**53 - 1,
            "reportSha256": "ab" * 32,
        },
        {"kind": "membership", "value": "-0.5", "interval": None, "command": "", "seed": 0, "reportSha256": None},
    ]


def _unicode(document: dict[str, Any]) -> None:
    document["subject"][0]["name"] = "mod\u00e8le oubli\u00e9 \u6a21\u578b.onnx"
    document["predicate"]["originalModel"]["name"] = "\u03b2\u03ac\u03c3\u03b7.onnx"
    document["predicate"]["request"]["reference"] = "\u05d1\u05e7\u05e9\u05d4 \U0001f9fe 17"
    document["predicate"]["prover"]["name"] = "e\u0301 and \u00e9 are two texts"


def _as_said(chain: Chain) -> Chain:
    """The statement names the assumption that the proof of C2 makes."""
    _, _, problem = patched_problem()
    document = chain.statement()
    claim: Claim = parse_claim(document["predicate"]["claims"][1], "C2").claim
    outcome = decide_bounded(problem, claim, chain.files["evidence/C2.proof"], "evidence/C2.proof")
    document["predicate"]["assumptions"] = list(outcome.assumptions)
    return chain.put(document)


def _stores() -> dict[str, bytes]:
    """Trust stores whose dates are a second away from now, by what is near."""
    return {
        "not-before": trust(trusted("owner", not_before=NOW)),
        "not-after": trust(trusted("owner", not_after=NOW + _SECOND)),
        "revoked": trust(trusted("owner", revoked=(NOW + _SECOND, "stolen"))),
        "expires": trust(trusted("owner"), expires=NOW + _SECOND),
    }


def _row(
    name: str, sentence: str, build: Build, *words: str, base: str = "records", data: tuple[str, ...] = DATA
) -> Folder:
    return Folder(name, 11, base, Case("Honest", sentence, build, OK, words), data)


def accepted() -> list[Folder]:
    """Every case of this file."""
    two, three = ("owner", "ecdsa owner"), ("owner", "ecdsa owner", "second")
    listed = [trusted("owner"), trusted("ecdsa owner", kind="p256"), trusted("second")]
    stores = _stores()
    rows = [
        # keys
        _row("honest-ed25519-and-ecdsa", "threshold 2, one signature of each algorithm", signed_by(*two, store=trust(*listed[:2], threshold=2))),
        _row("threshold-2-three-signatures", "threshold 2, three trusted keys signed", signed_by(*three, store=trust(*listed, threshold=2))),
        _row("threshold-3-three-signatures", "threshold 3, exactly three trusted keys signed, in another order than the store's", signed_by(*three[::-1], store=trust(*listed, threshold=3))),
        _row("sixteen-signatures", "sixteen signatures, fifteen of them by strangers: as many as an envelope may hold", signed_by(*(f"stranger {n}" for n in range(15)), "owner", store=trust(trusted("owner")))),
        _row("revoked-key-beside-a-good-one", "the store lists a revoked key beside the one that signed", files(trust__json=trust(trusted("owner"), trusted("second", revoked=(ISSUED, "lost"))))),
        _row("eight-keys-in-the-store", "the store lists eight keys of either algorithm, of which one signed", files(trust__json=trust(trusted("owner"), *(trusted(f"key {n}") for n in range(4)), *(trusted(f"key {n}", kind="p256") for n in range(3))))),
        _row("key-with-two-roles", "one key is listed as prover and as auditor", files(trust__json=trust(trusted("owner", roles=("prover", "auditor"))))),
        _row("key-valid-from-now", "the key becomes valid this second", files(trust__json=stores["not-before"])),
        _row("key-valid-until-next-second", "the key ends in the next second", files(trust__json=stores["not-after"])),
        _row("key-revoked-next-second", "the key is revoked from the next second on", files(trust__json=stores["revoked"])),
        _row("trust-store-valid-until-next-second", "the trust store ends in the next second", files(trust__json=stores["expires"])),
        # time and challenge
        _row("at-time-of-issue", "validity is judged in the second of issue", lambda c: c, "--at-time", _FIRST),
        _row("at-last-second", "validity is judged in the last second, where the policy allows that age", demand(max_age_days="3652"), "--at-time", _LAST),
        _row("expires-next-second", "the certificate ends in the next second", at("predicate/expiresAt", "2030-01-01T00:00:01Z")),
        _row("age-exactly-allowed", "exactly as old as the policy allows, 31 days", demand(max_age_days="31")),
        _row("challenge-from-file", "the auditor's challenge comes from a file", then(at("predicate/challenge", _NONCE), lambda _: {"challenge.json": canonical_json({"formatVersion": 1, "nonce": _NONCE, "createdAt": "2029-12-31T00:00:00Z", "note": "for the owner"})}), "--challenge", "challenge.json"),
        _row("challenge-required-and-answered", "the policy requires a challenge, one was given and answered", then(at("predicate/challenge", "00" * 16), demand(require_challenge="true")), "--challenge", "00" * 16),
        _row("challenge-nobody-asked-for", "a certificate for another challenge, where the auditor gave none and demands none", at("predicate/challenge", _NONCE)),
        # the statement
        _row("names-in-unicode", "names in several scripts, composed and decomposed", edit(_unicode)),
        _row("measurements-with-all-members", "measurements with intervals, seeds up to 2^53 - 1 and reports: shown, never believed", edit(_measured)),
        _row("claims-in-another-order", "the claims stand in another order", _claims(list.reverse)),
        _row("claims-with-other-ids", "the claims have other ids", _claims(lambda claims: [claim.update(id=f"claim-{n}") for n, claim in enumerate(claims)])),
        _row("claims-in-binary32-only", "no claims in real arithmetic, which the policy does not demand", edit(_only_binary32)),
        _row("margin-with-zeros-at-its-end", "a margin of 64 characters, all but four of them zeros at its end", _claims(lambda claims: [claim.update(margin="0.05" + "0" * 60) for claim in claims[:2]])),
        _row("more-sentences-that-are-not-claimed", "a sentence more that says what is not proved", edit(lambda d: d["predicate"]["nonClaims"].append("It says nothing about other networks."))),
        _row("evidence-that-no-claim-needs", "one more file of evidence, which no claim needs", then(lambda _: {"evidence/notes.txt": b"read me\n"}, edit(lambda d: d["predicate"]["evidence"].append({"name": "notes.txt", "sha256": sha256_hex(b"read me\n"), "bytes": 8})))),
        # where the files lie
        _row("evidence-in-another-folder", "the evidence lies elsewhere", _moved(_PATCH, "proofs/patch.json"), "--evidence", "proofs"),
        _row("openings-elsewhere", "the openings lie elsewhere", _moved("openings.json", "keys.json"), "--openings", "keys.json"),
        # the policy, met exactly
        _row("policy-met-by-number-of-records", "exactly as many records of each set as the policy demands", demand(min_forget_records="4", min_retain_records="41")),
        _row("policy-met-by-sizes-of-files", "networks, evidence and sets exactly as large as the policy allows", lambda c: demand(max_model_bytes=str(len(c.files["patched.onnx"])), max_evidence_bytes=str(len(c.files[_PATCH])), max_records="41")(c)),
        _row("policy-met-by-share-already-wrong", "exactly as many records that the base never answered as the policy allows, a quarter", then(already_wrong, demand(max_already_wrong_share="0.25"))),
        _row("policy-met-by-conflicts", "exactly as many conflicts as the policy allows, one of forty records", then(conflict_of_forty, demand(max_conflicts="1", max_slab_share="0.025", min_retain_records="40"))),
        _row("policy-met-by-both-arithmetics", "the policy demands every claim in both arithmetics", demand(arithmetics='["ieee754-binary32", "real"]')),
        _row("policy-numbers-of-64-digits", "numbers of 64 digits in the policy: a margin with zeros at its end, and a huge delta", demand(min_margin="0.05" + "0" * 61, max_delta="1e63")),
        _row("policy-sizes-of-4-gib", "limits of exactly 2^32 bytes in the policy, the most that it can allow", demand(max_model_bytes=str(2**32), max_evidence_bytes=str(2**32))),
        _row("policy-demands-less", "the policy demands smaller balls, a smaller margin and one kind of claim", demand(min_forget_radius="0.01", min_retained_radius="0", min_margin="0", required_for_records='["forget"]')),
        _row("policy-permits-more", "the policy permits assumptions that nothing needs", demand(permitted_assumptions='["z3_unsat:*", "anything"]')),
        _row("domain-per-coordinate", "the domain as a list, one interval for each coordinate, in policy and statement", then(edit(_per_coordinate), demand(lower=f"[{', '.join(['0'] * 64)}]", upper=f"[{', '.join(['1'] * 64)}]"))),
        _row("delta-exactly-allowed", "logits may move exactly as far as the policy allows, written with a zero more", demand(max_delta="0.10"), base="learned"),
        _row("band-exactly-as-wide-as-allowed", "the widest band is exactly as wide as the policy allows", demand(max_band_width="5.0"), base="held"),
        _row("held-band-of-each-gate-exactly-allowed", "no band: the gate that holds its margin farthest apart does so exactly as far as the policy allows, 2", then(_claims(lambda claims: [claim.update(band=None) for claim in claims[:2]]), demand(max_band_width="2")), base="held"),
        # stronger than demanded
        _row("margin-larger-than-demanded", "a larger margin than the policy demands", _claims(lambda claims: [claim.update(margin="0.1") for claim in claims[:2]])),
        _row("balls-larger-than-demanded", "the policy demands balls smaller than the claimed ones", demand(min_forget_radius="0.0999999", min_retained_radius="0.0499999")),
        _row("claims-weaker-than-the-gates", "smaller balls than the gates hold, which the policy allows", then(_claims(lambda claims: [claim["region"].update(radius="0.03125") for claim in claims[:4]]), demand(min_forget_radius="0.03125", min_retained_radius="0.03125"))),
        _row("k-larger-than-needed", "K twice as large as it has to be", _deployed(lambda p: replace(p, slack=F(p.slack * 2)))),
        _row("gates-in-another-order", "the gates in another order", _deployed(lambda p: replace(p, gates=p.gates[::-1]))),
        _row("gate-twice", "one gate twice: both are open together, for one label", _deployed(lambda p: replace(p, gates=(*p.gates, p.gates[0])))),
        # proofs
        _row("learned-in-integers", "bounds in integers", lambda c: c, "--exact", base="learned"),
        _row("foreign-in-integers", "bounds in integers, of a network of foreign making", lambda c: c, "--exact", base="foreign"),
        _row("shift-in-integers", "bounds in integers, of shifts", lambda c: c, "--exact", base="shift"),
        _row("assumption-permitted-and-said", "a record rests on z3, which the statement says and the policy permits", then(to_z3("evidence/C2.proof"), _as_said, demand(permitted_assumptions='["z3_unsat:*"]')), base="learned"),
        _row("least-shift-is-not-demanded", "no claim that the shifts are least, where the policy demands none", _claims(lambda claims: claims.pop()), base="shift"),
        _row("class-without-openings", "no openings, where no record is committed to", lambda _: {"openings.json": {"absent": True}}, base="class", data=()),
        _row("class-margin-exactly-tau-in-reals", "over the reals the class loses by exactly tau", at("predicate/claims/1/margin", "0.125"), base="class", data=()),
        # records
        _row("records-csv", "the records as tables of numbers", as_csv(), data=csv_words()),
        _row("records-csv-with-encoding", "the records as tables of grey levels and names, with the encoding that statement and policy name", encoded(), data=csv_words("--encoding", "encoding.json")),
        _row("records-csv-columns-in-another-order", "a table whose columns stand in another order than the encoding's: names decide", then(encoded(), lambda _: {"retain.csv": table("retain", raw=True, order=range(63, -1, -1))}), data=csv_words("--encoding", "encoding.json")),
        _row("records-csv-with-spaces", "a table with spaces around its cells and blank rows, which say nothing", then(as_csv(), lambda _: {"forget.csv": table("forget").replace(b",", b" , ").replace(b"\n", b"\n\n")}), data=csv_words()),
        _row("records-idx", "the records as idx files, grey levels over 255", as_idx(), data=idx_words()),
        _row("records-idx-gzip", "the records as idx files in gzip", as_idx(zipped=True), data=idx_words(".gz")),
        # networks
        *(_row(f"network-{name}", f"another form of base: {name.replace('-', ' ')}", _other_base(form().SerializeToString())) for name, form in FORMS.items()),
        *(_row(f"opset-{opset}-ir-{ir}", f"a base of opset {opset} and IR {ir}" + (", its constants listed as inputs" if opset == _OLDEST_OPSET else ""), _other_base(renumbered(opset, ir))) for opset, ir in ((7, 3), (9, 4), (11, 6), (13, 7), (18, 8), (21, 10))),
    ]  # fmt: skip
    return rows
