"""Make the conformance vectors of ``certs/vectors``: ``make vectors``.

Each vector's answer is stated by its author beside the attack, from certs/SPEC.md and the catalogue of threats;
no checker is asked while they are made, and tests/test_vectors.py compares. Running this twice gives the same bytes.
"""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

from certs.vector_maker import (
    commitments,
    envelopes,
    foreign,
    freshness,
    materials,
    networks,
    proofs,
    sites,
    statements,
    texts,
)
from certs.vector_maker.cases import Case, Group
from certs.vector_maker.expressions import described
from certs.vector_maker.owner import CERTIFICATE, Chain, structural
from certs.vectors.run import evaluate

VECTORS = Path(__file__).resolve().parent / "vectors"
GENERATOR_VERSION = "1"
THREATS = "THREATS"

WITHOUT_RECORDS = (
    CERTIFICATE, "--base", "base.onnx", "--patched", "patched.onnx", "--trust", "trust.json", "--policy",
    "policy.toml", "--at-time", "2030-01-01T00:00:00Z", "--json",
)  # fmt: skip
GROUPS = [
    Group("envelope and keys", "base/records", envelopes.CASES, envelopes.NOTES),
    Group("JSON, numbers and text", "base/records", texts.CASES, texts.NOTES),
    Group("statement", "base/records", statements.CASES, statements.NOTES),
    Group("files, records and commitments", "base/records", materials.CASES, materials.NOTES),
    Group("networks and patches", "base/records", networks.CASES, networks.NOTES),
    Group("patches of records and a class", "base/records-and-class", networks.CLASS_CASES, {}),
    Group(
        "statement about records and a class", "base/records-and-class", statements.CLASS_CASES, statements.CLASS_NOTES
    ),
    Group(
        "statement about a class", "base/class", statements.ONLY_CLASS_CASES, statements.CLASS_NOTES, WITHOUT_RECORDS
    ),
    Group("proofs", "base/learned", proofs.CASES, proofs.NOTES),
    Group("networks of foreign making", "base/foreign", foreign.CASES, foreign.NOTES),
    Group("gates at hidden outputs", "base/hidden", sites.HIDDEN_CASES, sites.NOTES),
    Group("gates that hold margins", "base/held", sites.HELD_CASES, {}),
    Group("shifts", "base/shift", sites.SHIFT_CASES, {}),
    Group("shifts that open together", "base/shift", sites.TOGETHER_CASES, {}),
    Group("training sets and receipts", "base/records", commitments.CASES, commitments.NOTES, commitments.COMMAND),
    Group("receipts without a training set", "base/records", commitments.WITHOUT_CASES, {}),
    Group("keys, stores and earlier certificates", "base/records", freshness.CASES, freshness.NOTES),
    Group("records that are not proved", "base/foreign", freshness.UNPROVED_CASES, freshness.UNPROVED_NOTES),
]


def chains() -> dict[str, Chain]:
    """The honest files, by folder."""
    return {
        "base/records": structural("records"),
        "base/records-and-class": structural("records+class", (3,)),
        "base/class": structural("class", (3,)),
        "base/learned": proofs.learned(),
        "base/foreign": foreign.foreign(),
        "base/hidden": sites.hidden(),
        "base/held": sites.held(),
        "base/shift": sites.shift(),
    }


def changed_files(case: Case, chain: Chain, base: Path) -> dict[str, Any]:
    """What a vector puts in place of the honest files, as expressions; each is evaluated again and compared."""
    built = case.build(chain.copy())
    found = built.files if isinstance(built, Chain) else built
    result: dict[str, Any] = {}
    for name, part in found.items():
        if isinstance(part, dict):
            result[name] = part
        elif name != "statement.json" and chain.files.get(name) != part:
            result[name] = described(name, part, chain.files)
            if evaluate(result[name], base) != part:
                raise ValueError(name)
    return result


def payload_digest(case: Case, built: dict[str, Any], chain: Chain, base: Path) -> str | None:
    """The identity that a checker must give a certificate that it accepts."""
    if case.answer.exit_code:
        return None
    data = evaluate(built[CERTIFICATE], base) if CERTIFICATE in built else chain.files[CERTIFICATE]
    import base64

    return sha256(base64.b64decode(json.loads(data)["payload"])).hexdigest()


def main() -> None:
    """Write the honest files and the vectors anew."""
    shutil.rmtree(VECTORS / "base", ignore_errors=True)
    honest = chains()
    for folder, chain in honest.items():
        for name, data in chain.files.items():
            target = VECTORS / folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    number, groups = 0, []
    for group in GROUPS:
        tests = []
        for case in group.cases:
            number += 1
            built = changed_files(case, honest[group.base], VECTORS / group.base)
            tests.append(
                {
                    "tcId": number,
                    "comment": case.comment,
                    "flags": [case.flag],
                    "files": built,
                    "args": list(case.args),
                    "result": case.answer.result,
                    "exitCode": case.answer.exit_code,
                    "errorCode": case.answer.code,
                    "errorPath": case.answer.path,
                    "payloadSha256": payload_digest(case, built, honest[group.base], VECTORS / group.base),
                }
            )
        groups.append({"name": group.name, "base": group.base, "command": list(group.command), "tests": tests})
    notes = {flag: note for group in GROUPS for flag, note in group.notes.items()}
    used = {test["flags"][0] for group in groups for test in group["tests"]}
    if used != set(notes):
        raise ValueError(used ^ set(notes))
    document = {
        "algorithm": "prune-verify certificate v1",
        "schema": "README.md",
        "generatorVersion": GENERATOR_VERSION,
        "numberOfTests": number,
        "notes": {
            flag: {"bugType": note.kind, "description": note.lax, "links": [f"{THREATS} {note.threat}"]}
            for flag, note in sorted(notes.items())
        },
        "testGroups": groups,
    }
    (VECTORS / "vectors.json").write_text(json.dumps(document, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
