"""Mutation testing of what decides a proof: change one operator at a time and see whether a test notices. ``make mutate``.

Each mutant is a copy of the package in which one comparison, arithmetic or Boolean operator, or one call of max
or min, is another. A mutant that every test lets pass is printed; those that change no meaning are listed in
``EQUIVALENT`` with the reason, and any other survivor ends the run with 1.

    python tests/mutate.py [MODULE ...]        the modules of TESTS by default
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_KERNEL = ("tests/checker/test_relaxation.py", "tests/checker/test_trees.py", "tests/checker/test_exact.py")
TESTS = {
    "rules": ("tests/checker/test_rules.py", "tests/checker/test_hold_head.py", "tests/checker/test_sites.py"),
    "rebuild": (
        "tests/checker/test_patch.py",
        "tests/checker/test_hold_head.py",
        "tests/checker/test_forged_patches.py",
        "tests/checker/test_sites.py",
        "tests/checker/test_rules.py",
    ),
    "sites": ("tests/checker/test_sites.py", "tests/checker/test_deep_sites.py"),
    "shift_minimality": ("tests/checker/test_shift_minimality.py",),
    "interval": ("tests/checker/test_interval.py", "tests/adversary/test_flushed_and_rewritten.py", *_KERNEL[:1]),
    "relaxation": _KERNEL,
    "relaxation_rules": (
        "tests/checker/test_relaxation_rules.py",
        "tests/properties/test_relaxation_rules_z3.py",
        *_KERNEL,
    ),
    "trees": _KERNEL[1:2],
    "goals": ("tests/checker/test_goals.py", *_KERNEL[1:2], "tests/checker/test_bounded_claims.py"),
    "exact": _KERNEL[2:],
    "minimality": ("tests/checker/test_minimality.py",),
    "bounded_claims": ("tests/checker/test_bounded_claims.py",),
}
SWAPS: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.GtE), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,), ast.And: (ast.Or,), ast.Or: (ast.And,), ast.BitAnd: (ast.BitOr,), ast.BitOr: (ast.BitAnd,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
}  # fmt: skip
CALLS = {"max": "min", "min": "max", "maximum": "minimum", "minimum": "maximum", "any": "all", "all": "any"}
# (module, what is changed, why no test can notice)
_WEAKER = "slopes are left out where some leaves have none: less is proved, nothing false"
_ZERO = "at 0 both give 0"
_NEAR = "what lies within the window around the radii is decided again, exactly; nothing lies on the window's edge"
EQUIVALENT: dict[tuple[str, str], str] = {
    ("goals", "if not 0 <= node < len(goals.network.nodes) or goals.network.nodes[node].op != 'Relu':"): "node 0 is the input and no Relu",
    ("goals", "numbers = (records[:, np.newaxis] * goals.clauses - np.arange(goals.clauses)).reshape(-1)"): "negative indices wrap: the same goals in another order",
    ("goals", "slopes = _slopes(goals, proof, sets, path) if (sets != CROWN).all() else {}"): _WEAKER,
    ("goals", "hints = Hints(_slopes(goals, proof, sets, path)) if (sets != CROWN).all() else Hints()"): _WEAKER,
    ("relaxation_rules", "moved = coefficient if axis == 1 else np.moveaxis(coefficient, axis, -1)"): "to move the last axis to the end changes nothing",
    ("relaxation_rules", "return found if axis == 1 else np.moveaxis(found, -1, axis)"): "to move the last axis to the end changes nothing",
    ("relaxation_rules", "unstable = (low <= 0) & (high > 0)"): "low >= 0 takes L = A all the same",
    ("relaxation_rules", "line = np.where(unstable, coefficient * np.where(coefficient > 0, chosen, chord), 0.0)"): _ZERO,
    ("relaxation_rules", "below, above = (np.where(end >= 0, (coefficient - line) * end, -(line * end)) for end in box)"): _ZERO,
    ("relaxation_rules", "crossing = (coefficient <= 0) & (below < 0)"): _ZERO,
    ("minimality", "bar, window = (float(reach), float(reach) / 2.0 ** (-40))"): _NEAR,
    ("minimality", "bar, window = (float(reach), float(reach) * 2.0 ** 40)"): _NEAR,
    ("minimality", "clear: Bools = (above > bar + window) | (below >= bar + window)"): _NEAR,
    ("minimality", "clear: Bools = (above > bar + window) | (below > bar - window)"): _NEAR,
    ("minimality", "clear: Bools = (above >= bar + window) | (below > bar + window)"): _NEAR,
    ("minimality", "clear: Bools = (above > bar - window) | (below > bar + window)"): _NEAR,
    ("minimality", "for row, j in zip(*np.nonzero((np.abs(above - bar) <= window) | (np.abs(below - bar) < window)), strict=True):"): _NEAR,
    ("minimality", "for row, j in zip(*np.nonzero((np.abs(above - bar) < window) | (np.abs(below - bar) <= window)), strict=True):"): _NEAR,
    ("trees", "if not 0 <= first < len(nodes) or nodes[first].op != 'Relu' or (not 0 <= second < prod(nodes[first].shape)):"): "node 0 is the input and no Relu",
    ("sites", "if sign >= 0:"): "sign is 1 or -1",
    ("sites", "if self.base.nodes[index].op == 'Input' and (not elements.size):"): "what is known of the input is exact, and a walk of nothing narrows nothing",
    ("sites", "step = max(1, _CELLS // (len(self._chosen()) * min((prod(node.shape) for node in self._first().nodes))))"): "batches of another size",
    ("rules", "closed = total > bar"): "what equals the bar is looked at exactly, with the same answer",
    ("rules", "close = np.flatnonzero(~closed & (total > bar * (1 - 2.0 ** (-40))))"): "the window is a choice; nothing lies on its edge that the rule would accept",
    ("rules", "close = np.flatnonzero(~closed | (total >= bar * (1 - 2.0 ** (-40))))"): "more is looked at exactly, with the same answers",
    ("rules", "close = np.flatnonzero(~closed & (total >= bar * (1 - 2.0 ** 40)))"): "more is looked at exactly, with the same answers",
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One changed copy of a module.

    Args:
        module: its name.
        line: of the change.
        before: the statement, unparsed.
        after: the statement as changed.
        source: the whole module as changed.

    """

    module: str
    line: int
    before: str
    after: str
    source: str


def _variants(node: ast.AST) -> Iterator[ast.AST]:  # noqa: C901 - one branch per kind of operator
    """The node with one operator changed."""
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            for other in SWAPS.get(type(operator), ()):
                new = deepcopy(node)
                new.ops[place] = other()
                yield new
    elif isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign):
        for other in SWAPS.get(type(node.op), ()):
            new = deepcopy(node)
            new.op = other()
            yield new
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert | ast.USub):
        yield deepcopy(node.operand)
    elif isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in CALLS:
            new = deepcopy(node)
            if isinstance(new.func, ast.Attribute):
                new.func.attr = CALLS[name]
            elif isinstance(new.func, ast.Name):
                new.func.id = CALLS[name]
            yield new


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """Simple statements and the heads of compound ones, without what only builds an error."""
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and not isinstance(
            node, ast.Raise | ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom | ast.Module
        ):
            yield node


def _own(statement: ast.stmt) -> Iterator[ast.AST]:
    """The expressions of a statement, not those of the statements in it, and no text of an f-string."""
    stack: list[ast.AST] = [statement]
    while stack:
        node = stack.pop()
        yield node
        stack += [
            child
            for child in ast.iter_child_nodes(node)
            if not isinstance(child, ast.stmt | ast.JoinedStr | ast.ExceptHandler)
            and not (isinstance(statement, ast.AnnAssign) and child is statement.annotation)
        ]


def _head(statement: ast.stmt) -> str:
    return ast.unparse(statement).splitlines()[0]


def mutants(module: str) -> Iterator[Mutant]:
    """Every mutant of a module of the checker."""
    text = (ROOT / "prune_verify" / "checker" / f"{module}.py").read_text(encoding="utf-8")
    count = sum(1 for statement in _statements(ast.parse(text)) for _ in _own(statement))
    for place in range(count):
        for variant in range(4):
            tree = ast.parse(text)
            found = [(s, node) for s in _statements(tree) for node in _own(s)]
            statement, target = found[place]
            if target is statement and not isinstance(statement, ast.AugAssign):
                break
            changed = list(_variants(target))
            if variant >= len(changed):
                break
            before = _head(statement)
            _replace(statement, target, changed[variant])
            ast.fix_missing_locations(tree)
            yield Mutant(module, statement.lineno, before, _head(statement), ast.unparse(tree))


def _replace(root: ast.AST, old: ast.AST, new: ast.AST) -> None:
    if root is old and isinstance(root, ast.AugAssign) and isinstance(new, ast.AugAssign):
        root.op = new.op
        return
    for parent in ast.walk(root):
        for name, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, name, new)
            elif isinstance(value, list):
                for place, item in enumerate(value):
                    if item is old:
                        value[place] = new


def survives(mutant: Mutant) -> bool:
    """Whether the module's tests pass although it is changed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("prune_verify", "tests", "certs"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        (folder / "prune_verify" / "checker" / f"{mutant.module}.py").write_text(mutant.source, encoding="utf-8")
        tests = [test for test in TESTS[mutant.module] if (folder / test).exists()]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": name, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            check=False,
            timeout=900,
        )
        return done.returncode == 0


def main(modules: list[str]) -> int:
    """Run the mutants of the modules; 1 when one survives that is not listed as equivalent."""
    worst = 0
    for module in modules:
        listed = list(mutants(module))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            alive = [m for m, lives in zip(listed, pool.map(survives, listed), strict=True) if lives]
        known = [m for m in alive if (module, m.after) in EQUIVALENT]
        sys.stdout.write(f"{module}: {len(listed)} mutants, {len(alive)} survive, {len(known)} of them equivalent\n")
        for mutant in alive:
            reason = EQUIVALENT.get((module, mutant.after))
            note = f"   equivalent: {reason}" if reason else ""
            sys.stdout.write(f"  {module}.py:{mutant.line}: {mutant.before}\n    -> {mutant.after}{note}\n")
            worst = worst if reason else 1
        sys.stdout.flush()
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(TESTS)))
