"""Vectors about a patched network of foreign making: no patch.json, claims by relaxation and by names.

Source: certs/SPEC.md sections 5.3, 5.6 and 7; the shapes of DECISIONS 28.
"""

# ruff: noqa: E501 - a row of a table of vectors is one line

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from certs.vector_maker.cases import OK, Build, Case, Note, edit, refused
from certs.vector_maker.owner import (
    ARITHMETICS,
    MARGIN,
    RADIUS,
    RETAINED_RADIUS,
    Chain,
    policy,
    write,
)
from certs.vector_maker.proofs import by_crown, patched_problem
from prune_verify.checker.bounded_claims import decide_bounded
from prune_verify.checker.claim import Claim, Outcome
from prune_verify.checker.identity import decide_identity
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.proof import emit, parse

__all__ = ["CASES", "NOTES", "foreign"]

_COUNTS = "predicate/claims/C{}/counts"


def foreign() -> Chain:
    """An honest certificate: forget by relaxation, retain_exact by names, each in both arithmetics."""
    base_bytes, patch, problem = patched_problem()
    problem = replace(problem, patch=None)
    claims: list[tuple[Claim, Outcome]] = []
    evidence: dict[str, bytes] = {}
    for arithmetic in ARITHMETICS:
        claim = Claim("forget", arithmetic, "relaxation", radius=RADIUS, margin=MARGIN)
        proof = by_crown(problem, claim)
        evidence[f"C{len(claims) + 1}.proof"] = proof
        claims.append((claim, decide_bounded(problem, claim, proof, "proof")))
    for arithmetic in ARITHMETICS:
        claim = Claim("retain_exact", arithmetic, "identity", radius=RETAINED_RADIUS)
        claims.append((claim, decide_identity(problem, claim)))
    if any(outcome.proved != outcome.total for _, outcome in claims):
        raise ValueError(claims)
    chain = write("records", patch, claims, evidence, base_bytes, withheld=True)
    chain.files["policy.toml"] = policy(required_for_records='["forget", "retain_exact"]')
    return chain


def _deployed(change: Callable[[onnx.ModelProto], None]) -> Build:
    """Another patched network, its digest in statement and proofs."""

    def build(chain: Chain) -> Chain:
        model = onnx.load_from_string(chain.files["patched.onnx"])
        change(model)
        data = model.SerializeToString()
        digest = load_network(data, "patched.onnx").network.digest()
        for name in ("evidence/C1.proof", "evidence/C2.proof"):  # made for this network as well
            chain = chain.swap(name, emit(replace(parse(chain.files[name], name), network=digest)))
        return chain.swap("patched.onnx", data)

    return build


def _one_ulp(model: onnx.ModelProto) -> None:
    """One weight of the base's first layer is the next float32, in the patched network only."""
    tensor = next(t for t in model.graph.initializer if len(t.dims) == 2)  # noqa: PLR2004 - a matrix
    value = numpy_helper.to_array(tensor).copy()
    value.reshape(-1)[0] = np.nextafter(value.reshape(-1)[0], np.float32(np.inf))
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def _one_label_more(model: onnx.ModelProto) -> None:
    """A logit far above all others: every record loses its label, to one that does not exist."""
    output = model.graph.output[0]
    for node in model.graph.node:
        for place, name in enumerate(node.output):
            if name == output.name:
                node.output[place] = "all_before"
    for name, value in (("first", np.array([0], np.int64)), ("great", np.array([1e6], np.float32))):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    model.graph.node.extend(
        [
            onnx.helper.make_node("Gather", ["all_before", "first"], ["logit_0"], axis=1),
            onnx.helper.make_node("Add", ["logit_0", "great"], ["one_more"]),
            onnx.helper.make_node("Concat", ["all_before", "one_more"], [output.name], axis=1),
        ]
    )
    output.type.tensor_type.shape.dim[1].dim_value += 1


def _claims(place: int, **members: object) -> Build:
    """Other members in both claims of a kind."""

    def change(document: dict[str, Any]) -> None:
        for claim in document["predicate"]["claims"][place : place + 2]:
            claim.update(members)

    return edit(change)


def _kind(document: dict[str, Any]) -> None:
    document["predicate"]["request"]["kind"] = "records+class"


CASES = [
    Case("Honest", "a network without patch.json: forget by relaxation, retain_exact by names", lambda c: c, OK),
    Case("OneLabelMore", "the patched network has one label more, above all others", _deployed(_one_label_more), refused("SUBJECT", "patched.onnx")),
    Case("BaseNotInside", "one weight of the base is the next float32 in the patched network", _deployed(_one_ulp), refused("PROOF", _COUNTS.format(3))),
    Case("ClassWithoutPatch", "a request for a class as well, so that demands on classes meet no patch", edit(_kind), refused("POLICY", "predicate/request/kind")),
    Case("MethodOfAnother", "retain_exact by a structural rule, without a patch", _claims(2, method="structural"), refused("PROOF", "patch.json")),
    Case("MethodOfAnother", "forget by names", _claims(0, method="identity"), refused("UNSUPPORTED", "claim forget")),
    Case("TooLarge", "balls in which a gate opens", _claims(2, region={"kind": "ball", "norm": "linf", "radius": "0.9"}), refused("PROOF", _COUNTS.format(3))),
]  # fmt: skip
NOTES = {
    "OneLabelMore": Note("PROOF", "1 T17", "A label that the base does not have beats every other, so that all records count as forgotten."),
    "BaseNotInside": Note("PROOF", "1 T17", "A base that is almost inside: its logits are not the base's."),
    "ClassWithoutPatch": Note("POLICY", "1 T18", "Demands on classes are read from the patch, and there is none."),
    "MethodOfAnother": Note("PROOF", "1 T20", "A method without what it rests on, or for a kind that it does not decide."),
    "TooLarge": Note("PROOF", "2 proofs: claim weakened after proof, vacuous region", "A region on which a gate opens, with the counts of another."),
}  # fmt: skip
