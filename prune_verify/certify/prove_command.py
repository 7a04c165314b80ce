"""``prune-verify prove``: one VNN-LIB property, answered as VNN-COMP does, with a proof or a counterexample.

``unsat`` is said only if the checker accepts the proof, ``sat`` only if onnxruntime confirms the counterexample on the
network's own file. Otherwise ``timeout`` where time ran out, or ``unknown``.

Source: FORMATS section 3 (prove); rules of VNN-COMP.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
import numpy.typing as npt

from prune_verify.certify.counterexamples import Runner, clamped, property_holds_at
from prune_verify.certify.errors import CertifyInputError
from prune_verify.certify.settle import Limits, Settled, settle
from prune_verify.certify.vnnlib_files import write_counterexample
from prune_verify.checker.encoding import read_file
from prune_verify.checker.goals import Goals, decide_goals
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.proof import Proof, emit, parse
from prune_verify.checker.vnnlib import MAX_BYTES, Case, goals_of_property, parse_property
from prune_verify.files import replace_file

__all__ = ["Answer", "Found", "answer_property", "prove_command", "prove_goals"]

_MOST_SPLITS = 2**16
_SHARE = 0.5  # of the time goes to splits, the rest to z3 and what it elaborates


@dataclass(frozen=True, eq=False)
class Found:
    """What the stages came to.

    Args:
        proof: of the goals that were proved; the others have choice -1.
        closed: [goals]: which ones.
        settled: the rest of it.
        leaves: of all trees.
        seconds: spent.

    """

    proof: Proof
    closed: npt.NDArray[np.bool_]
    settled: Settled
    leaves: int
    seconds: float


def prove_goals(goals: Goals, timeout: float, *, solver: bool = False, seed: int = 0) -> Found:
    """Settle goals, each record (each box of a property) within its share of the time.

    Args:
        goals: of a property.
        timeout: seconds in all.
        solver: whether z3 is asked about what is left open.
        seed: of the attack.

    """
    start = time.monotonic()
    each = timeout / goals.records
    limits = Limits(
        splits=_MOST_SPLITS, seconds=each * (_SHARE if solver else 1.0), solver_seconds=0.25 * each * solver, seed=seed
    )
    settled = settle(goals, limits)
    closed = np.zeros(goals.records * goals.clauses, dtype=np.bool_)
    closed[list(settled.proof.choices)] = True
    proof = settled.proof.write(goals, "property")
    return Found(proof, closed, settled, settled.proof.leaves(), time.monotonic() - start)


@dataclass(frozen=True, eq=False)
class Answer:
    """The answer to a property.

    Args:
        word: ``unsat``, ``sat``, ``unknown`` or ``timeout``.
        proof: bytes, of ``unsat``.
        counterexample: of ``sat``, in the form of VNN-COMP.
        leaves: of the proof.
        stage: that closed the last of it.
        seconds: spent, loading not included.

    """

    word: str
    proof: bytes
    counterexample: str
    leaves: int
    stage: str
    seconds: float


def answer_property(data: bytes, name: str, cases: Sequence[Case], arithmetic: str, timeout: float) -> Answer:
    """Answer a property of a network.

    Args:
        data: the ONNX file.
        name: its name, for errors.
        cases: of the property.
        arithmetic: of the claim that ``unsat`` makes.
        timeout: seconds.

    Raises:
        CheckError: the network cannot be used.

    """
    start = time.monotonic()
    model = load_network(data, name).network
    goals = goals_of_property(model, list(cases), arithmetic)
    found = prove_goals(goals, timeout, solver=True)
    word, proof, counterexample = "unknown", b"", ""
    runner = Runner(data)
    for x, case in product(found.settled.points.values(), cases):
        inside = clamped(case, x)
        y = runner.logits(inside)
        if property_holds_at([case], inside, y):
            word, counterexample = "sat", write_counterexample(inside.reshape(-1), y)
            break
    if word == "unknown" and bool(found.closed.all()):
        proof = emit(found.proof)
        word = "unsat" if bool(decide_goals(goals, parse(proof, "proof"), "proof").all()) else "unknown"
    seconds = time.monotonic() - start
    if word == "unknown" and (found.settled.timed or seconds >= timeout):
        word = "timeout"
    stage = next((name for name, count in reversed(found.settled.stages.items()) if count), "none")
    return Answer(word, proof if word == "unsat" else b"", counterexample, found.leaves, stage, seconds)


def prove_command(options: argparse.Namespace) -> tuple[int, str, object]:
    """Answer one property.

    Returns:
        Exit code 0, the answer in a line of its own with what was found, and the same as one object.

    Raises:
        CheckError: network or property cannot be used.
        CertifyError: no way to prove it.

    """
    if not options.timeout > 0:
        text = f"--timeout: expected more than 0 seconds, got {options.timeout}"
        raise CertifyInputError(text)
    data = read_file(options.network, "network", 2**30)
    model = load_network(data, str(options.network)).network
    question = read_file(options.property, "property", MAX_BYTES)
    cases = parse_property(question, str(options.property), prod(model.input_shape), model.labels)
    answer = answer_property(data, str(options.network), cases, options.arithmetic, options.timeout)
    if answer.word == "unsat" and options.proof is not None:
        replace_file(options.proof, answer.proof)
    if answer.word == "sat" and options.counterexample is not None:
        replace_file(options.counterexample, answer.counterexample.encode())
    shown = {
        "unsat": f"{answer.leaves} leaves, {len(answer.proof)} bytes of proof, {options.arithmetic}",
        "sat": answer.counterexample.strip(),
    }.get(answer.word, "")
    lines = [answer.word, *([shown] if shown else []), f"{answer.seconds:.2f} s, last stage {answer.stage}"]
    summary = {
        "answer": answer.word,
        "leaves": answer.leaves,
        "proofBytes": len(answer.proof),
        "counterexample": answer.counterexample or None,
        "stage": answer.stage,
        "seconds": round(answer.seconds, 3),
        "arithmetic": options.arithmetic,
    }
    return 0, "\n".join(lines), summary
