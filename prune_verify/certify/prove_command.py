"""``prune-verify prove``: one VNN-LIB property, answered by the plain branch and bound.

The answer is ``unsat`` only if the checker accepts the proof; otherwise ``unknown``, or ``timeout`` when time ran out.
Counterexamples are not searched for.

Source: FORMATS section 3 (prove).
"""

from __future__ import annotations

import argparse
import time
from math import prod

from prune_verify.certify.split_proofs import Found, prove_by_input_splits, prove_by_relu_splits
from prune_verify.checker.encoding import read_file
from prune_verify.checker.goals import Goals, decide_goals
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.proof import emit, parse
from prune_verify.checker.vnnlib import MAX_BYTES, goals_of_property, parse_property
from prune_verify.files import replace_file

__all__ = ["prove_command", "prove_goals"]

_FEW_INPUTS = 16


def prove_goals(goals: Goals, timeout: float) -> Found:
    """Prove by cases over the input where it has few numbers, else over the signs of neurons.

    Args:
        goals: of one box.
        timeout: seconds.

    Raises:
        CertifyInputError: several boxes, or no chain.

    """
    if prod(goals.network.input_shape) <= _FEW_INPUTS:
        return prove_by_input_splits(goals, timeout=timeout)
    return prove_by_relu_splits(goals, timeout=timeout)


def prove_command(options: argparse.Namespace) -> tuple[int, str, object]:
    """Answer one property.

    Returns:
        Exit code 0, the answer in a line of its own with what was found, and the same as one object.

    Raises:
        CheckError: network or property cannot be used.
        CertifyError: no way to prove it.

    """
    start = time.monotonic()
    model = load_network(read_file(options.network, "network", 2**30), str(options.network)).network
    data = read_file(options.property, "property", MAX_BYTES)
    cases = parse_property(data, str(options.property), prod(model.input_shape), model.labels)
    goals = goals_of_property(model, cases, options.arithmetic)
    found = prove_goals(goals, options.timeout)
    proof = emit(found.proof)
    proved = bool(decide_goals(goals, parse(proof, "proof"), "proof").all())
    seconds = time.monotonic() - start
    answer = "unsat" if proved else "timeout" if seconds >= options.timeout else "unknown"
    if proved and options.proof is not None:
        replace_file(options.proof, proof)
    text = f"{answer}\n{found.leaves} leaves, {len(proof)} bytes of proof, {seconds:.2f} s, {options.arithmetic}"
    summary = {
        "answer": answer,
        "leaves": found.leaves,
        "proofBytes": len(proof),
        "seconds": round(seconds, 3),
        "arithmetic": options.arithmetic,
    }
    return 0, text, summary
