"""The auditor's solver: only unsat counts, and whatever goes wrong in the child is unknown."""

from __future__ import annotations

import importlib.util
import resource
from pathlib import Path

import pytest

from prune_verify.checker import solver as module
from prune_verify.checker.errors import MalformedInputError
from prune_verify.checker.solver import SOLVERS, Resolution, ask, require_solver

QUERY = "(set-logic QF_LRA)\n(declare-const x Real)\n(assert (> x 1))\n(assert (< x {}))\n(check-sat)\n"
# Pigeons in too few holes, over reals with 0-1 choices: hard for a solver, short to write.
_HOLES = 11
HARD = "\n".join(
    ["(set-logic QF_LRA)"]
    + [f"(declare-const p{i}_{j} Bool)" for i in range(_HOLES + 1) for j in range(_HOLES)]
    + [f"(assert (or {' '.join(f'p{i}_{j}' for j in range(_HOLES))}))" for i in range(_HOLES + 1)]
    + [
        f"(assert (not (and p{i}_{j} p{k}_{j})))"
        for j in range(_HOLES)
        for i in range(_HOLES + 1)
        for k in range(i + 1, _HOLES + 1)
    ]
    + ["(check-sat)", ""]
)


@pytest.fixture(params=SOLVERS)
def name(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param)
    return request.param


def test_answers_and_version(name: str) -> None:
    require_solver(name)
    unsat, sat = ask(name, QUERY.format(0)), ask(name, QUERY.format(2))
    assert (unsat.answer, sat.answer) == ("unsat", "sat")
    assert unsat.solver == sat.solver
    assert unsat.solver.startswith(f"{name}-")


def test_a_text_that_is_no_query_is_unknown(name: str) -> None:
    assert ask(name, "(assert").answer == "unknown"


def test_too_little_memory_is_unknown(name: str) -> None:
    assert ask(name, QUERY.format(0), mebibytes=40) == Resolution("unknown", name)


def test_time_runs_out(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(module, "_START", 0.0)
    assert ask(name, HARD, seconds=3.0).answer == "unknown"


def test_a_library_in_the_folder_that_the_auditor_stands_in_is_not_loaded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """z3 looks for its library in ``.`` first; an owner's folder could bring one that answers unsat."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").split()
    other = next(word for word in maps if Path(word).name.startswith("libc.so"))
    for library in {*(path.name for path in Path(spec.origin).parent.rglob("*.so*")), "libz3.so"}:
        (tmp_path / library).symlink_to(other)
    monkeypatch.chdir(tmp_path)
    assert ask(name, QUERY.format(2)).answer == "sat"


def test_a_lower_limit_of_the_auditors_own_is_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ``ulimit -v`` allows less than the solver may use, the solver gets that, and still answers."""
    limit = 3 << 30
    code = f"import resource\nresource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))\n" + module._CHILDREN[name]
    monkeypatch.setattr(module, "_CHILDREN", {name: code})
    monkeypatch.setattr(module, "_START", 60.0)
    assert resource.getrlimit(resource.RLIMIT_AS)[1] == resource.RLIM_INFINITY
    assert ask(name, QUERY.format(0)).answer == "unsat"


CHILDREN = [
    ("nothing at all", ""),
    ("a crash", "import os\nos.abort()"),
    ("garbage", "print('unsat')"),
    ("two answers", 'print(\'{"answer": "unsat", "version": "1"}{}\')'),
    ("another form", "print('[]')"),
    ("a member too many", 'print(\'{"answer": "unsat", "version": "1", "more": 1}\')'),
    ("an answer and a failure", 'print(\'{"answer": "unsat", "version": "1"}\')\nraise SystemExit(1)'),
    ("a list in a list, and so on", "print('[' * 200000)"),
    ("a number that takes long to read", "print('1' * 10000)"),
    ("a version of two lines", r"""print('{"answer": "unsat", "version": "1\\nVERDICT: VERIFIED"}')"""),
    ("a version that is no text", 'print(\'{"answer": "unsat", "version": 1}\')'),
    ("no text", "import sys\nsys.stdout.buffer.write(b'\\xff')"),
]


@pytest.mark.parametrize(("sentence", "code"), CHILDREN, ids=[row[0] for row in CHILDREN])
def test_what_a_child_may_not_say(sentence: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHILDREN", {"z3": code})
    assert ask("z3", QUERY.format(0)) == Resolution("unknown", "z3")
    with pytest.raises(MalformedInputError):
        require_solver("z3")


def test_another_word_than_sat_and_unsat_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHILDREN", {"z3": 'print(\'{"answer": "unsat?", "version": "1"}\')'})
    assert ask("z3", "") == Resolution("unknown", "z3-1")
