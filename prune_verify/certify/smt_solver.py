"""z3 in a process of its own, with limits on time and memory and fixed seeds.

A query is SMT-LIB 2 text. The answer is ``unsat``, ``sat`` or ``unknown``; a time-out, a kill for memory
and a crash are all ``unknown``, and nothing that z3 says is proof: an ``unsat`` that is not elaborated into
a checkable proof rests on a named assumption.

Run as a module, this file is the child: the query on stdin, one line of JSON on stdout.

Source: MATHS 5.3; SMT-LIB 2.6; z3's ``Solver.from_string``.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

__all__ = ["Answer", "MalformedQueryError", "solve", "solve_with_model"]

Result = Literal["unsat", "sat", "unknown"]

_RESULTS: dict[str, Result] = {"unsat": "unsat", "sat": "sat"}
_GRACE = 2.0  # seconds for the child to start and to stop by itself before it is killed
_INTERPRETER_MB = 1024  # address space of Python and z3's library, beside what z3 may use
_MALFORMED = 3
_MEBI = 2**20


class MalformedQueryError(ValueError):
    """The text is not an SMT-LIB 2 query that z3 reads."""


@dataclass(frozen=True)
class Answer:
    """What z3 said.

    Args:
        result: ``unsat``, ``sat`` or ``unknown``.
        model: for ``sat``, the value of every real constant of the query that z3 gives a rational one.

    """

    result: Result
    model: dict[str, Fraction]


def solve(query_text: str, timeout_s: float, memory_mb: int) -> Result:
    """Whether the query has a model.

    Args:
        query_text: SMT-LIB 2; one ``check-sat`` over all its assertions is meant, whatever commands it has.
        timeout_s: seconds, after which the answer is ``unknown``.
        memory_mb: mebibytes that z3 may use.

    Raises:
        MalformedQueryError: z3 cannot read the text.

    """
    return solve_with_model(query_text, timeout_s, memory_mb).result


def solve_with_model(query_text: str, timeout_s: float, memory_mb: int) -> Answer:
    """Like :func:`solve`, with the model that z3 found.

    Args:
        query_text: SMT-LIB.
        timeout_s: seconds.
        memory_mb: greatest memory, in MB.

    Raises:
        MalformedQueryError: z3 cannot read the text.

    """
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p)
    limits = [str(max(1, int(timeout_s * 1000))), str(memory_mb)]
    try:
        child = subprocess.run(  # noqa: S603 - this interpreter and this module, numbers as arguments
            [sys.executable, "-P", "-m", "prune_verify.certify.smt_solver", *limits],
            input=query_text.encode(),
            capture_output=True,
            timeout=timeout_s + _GRACE,
            env={**os.environ, "PYTHONPATH": path},
            check=False,
            cwd="/",  # z3 looks for its library in "." first
        )
    except subprocess.TimeoutExpired:
        return Answer("unknown", {})
    if child.returncode == _MALFORMED:
        raise MalformedQueryError(child.stderr.decode(errors="replace").strip())
    if child.returncode != 0:
        return Answer("unknown", {})
    found = json.loads(child.stdout)
    model = {name: Fraction(value) for name, value in found["model"].items()}
    return Answer(_RESULTS.get(found["result"], "unknown"), model)


def _main(timeout_ms: int, memory_mb: int) -> int:
    """Answer the query on stdin within the limits; the child's side."""
    limit = (memory_mb + _INTERPRETER_MB) * _MEBI
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    import z3

    z3.set_param("memory_max_size", memory_mb)
    solver = z3.Solver()
    solver.set("timeout", timeout_ms)
    solver.set("random_seed", 0)
    try:
        solver.from_string(sys.stdin.read())
    except z3.Z3Exception as error:
        sys.stderr.write(str(error))
        return _MALFORMED
    try:
        result = str(solver.check())
    except z3.Z3Exception:  # out of memory
        result = "unknown"
    values = {}
    if result == "sat":
        model = solver.model()
        numbers = ((d.name(), model[d]) for d in model.decls() if d.arity() == 0)
        values = {
            name: f"{v.numerator_as_long()}/{v.denominator_as_long()}" for name, v in numbers if z3.is_rational_value(v)
        }
    sys.stdout.write(json.dumps({"result": result, "model": values}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main(int(sys.argv[1]), int(sys.argv[2])))
