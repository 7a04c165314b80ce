"""A solver of the auditor's own, asked the question that the checker wrote: ``verify --resolve-smt z3|cvc5``.

The solver runs in a child process with limits on time and memory; this process never imports it. Only the word
``unsat`` on the child's answer line counts; a time-out, a kill, a crash or anything else is ``unknown``. What is then
trusted is the auditor's solver, and the verdict says so.

The child stands in the root folder: z3 looks for its library in ``.`` first, and the auditor may stand in a folder of
the owner's.

Source: MATHS 5.3; SMT-LIB 2.6; certs/SPEC.md section 5.3.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass

from prune_verify.checker.errors import MalformedInputError

__all__ = ["SOLVERS", "Resolution", "ask", "require_solver"]

SECONDS, MEBIBYTES = 60.0, 4096
_LONGEST = 200  # characters of an answer
_START = 20.0  # seconds to start Python and load the solver
_PREAMBLE = """\
import json, resource, sys
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
limit = int(sys.argv[1]) << 20
limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
text = sys.stdin.read()
"""
_Z3 = """\
import z3
version, answer = z3.get_version_string(), "unknown"
if text:
    solver = z3.Solver()
    solver.add(z3.parse_smt2_string(text))
    answer = str(solver.check())
"""
_CVC5 = """\
import cvc5
version, answer = cvc5.__version__, "unknown"
if text:
    solver = cvc5.Solver()
    parser = cvc5.InputParser(solver)
    parser.setStringInput(cvc5.InputLanguage.SMT_LIB_2_6, text, "query")
    while not (command := parser.nextCommand()).isNull():
        answer = command.invoke(solver, parser.getSymbolManager()).strip() or answer
"""
_LAST = 'print(json.dumps({"answer": answer, "version": version}))\n'
_CHILDREN = {"z3": _PREAMBLE + _Z3 + _LAST, "cvc5": _PREAMBLE + _CVC5 + _LAST}
_PACKAGES = {"z3": "z3-solver", "cvc5": "cvc5"}
_VERSION = re.compile(r"[0-9A-Za-z.+-]{1,40}", re.ASCII)
SOLVERS = tuple(_CHILDREN)


@dataclass(frozen=True)
class Resolution:
    """What a solver said.

    Args:
        answer: ``unsat``, ``sat`` or ``unknown``.
        solver: its name and version, such as ``z3-4.15.0``; the name alone where it said nothing.

    """

    answer: str
    solver: str


def ask(name: str, query: str, *, seconds: float = SECONDS, mebibytes: int = MEBIBYTES) -> Resolution:
    """Put one question to a solver.

    Args:
        name: one of ``SOLVERS``.
        query: SMT-LIB 2 with one ``check-sat``; empty: only the version is asked.
        seconds: after which the answer is ``unknown``.
        mebibytes: of address space that the child may use, Python included.

    """
    command = [sys.executable, "-I", "-c", _CHILDREN[name], str(mebibytes)]
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter and a text of this file
            command, input=query, capture_output=True, text=True, timeout=seconds + _START, check=False, cwd="/"
        )
        short = len(done.stdout) <= _LONGEST  # too short for lists in lists to exhaust the stack, whatever its limit
        found = json.loads(done.stdout) if short and done.returncode == 0 else None
    except (subprocess.TimeoutExpired, OSError, ValueError):  # ValueError: no UTF-8, no JSON
        found = None
    if not isinstance(found, dict) or found.keys() != {"answer", "version"}:
        return Resolution("unknown", name)
    if not isinstance(found["version"], str) or _VERSION.fullmatch(found["version"]) is None:
        return Resolution("unknown", name)  # it is printed with the verdict
    answer = found["answer"] if found["answer"] in ("sat", "unsat") else "unknown"
    return Resolution(answer, f"{name}-{found['version']}")


def require_solver(name: str) -> None:
    """Establish that the solver of this name is installed.

    Raises:
        MalformedInputError: it is not; with the line that installs it.

    """
    if ask(name, "").solver == name:
        expected = f"pip install {_PACKAGES[name]}"
        raise MalformedInputError(f"--resolve-smt {name}", "an installed solver", expected, "none that answers")
