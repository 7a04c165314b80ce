"""Every row of the attack catalogue has a line in SECURITY.md that says who notices, and tests that exist and name the attack.

The tests are looked up in the source: a function of the file, a row of its table by name, or a flag of the vectors.
"""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = [f"T{number}" for number in range(1, 29)]
STEPS = range(1, 12)


@cache
def lines() -> dict[str, list[str]]:
    """The lines of the table by row: attack, game, who notices, tests."""
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8").partition("\n## Who notices what")[2]
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| T")
    ]
    assert len({one[0] for one in cells}) == len(cells), "SECURITY.md: a row stands there twice"
    return {one[0]: one[1:] for one in cells}


@cache
def functions(name: str) -> dict[str, str]:
    """Test functions of a file of this folder, with the source of the file's tables for each."""
    path = Path(__file__).parent / f"{name}.py"
    if not path.is_file():
        return {}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            tables = {n.id for mark in node.decorator_list for n in ast.walk(mark) if isinstance(n, ast.Name)}
            values = [n.value for n in tree.body if isinstance(n, ast.Assign | ast.AnnAssign) and _target(n) in tables]
            texts = [*node.decorator_list, *(value for value in values if value is not None)]
            found[node.name] = "\n".join(
                n.value
                for part in texts
                for n in ast.walk(part)
                if isinstance(n, ast.Constant) and isinstance(n.value, str)
            )
    return found


def _target(node: ast.Assign | ast.AnnAssign) -> str:
    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
    return target.id if isinstance(target, ast.Name) else ""


@cache
def flags() -> set[str]:
    value = json.loads((ROOT / "certs" / "vectors" / "vectors.json").read_text(encoding="utf-8"))
    return {flag for group in value["testGroups"] for test in group["tests"] for flag in test["flags"]}


def missing(reference: str) -> str:
    """What is wrong with a reference to a test; empty if it exists."""
    if reference.startswith("vectors "):
        flag = reference.removeprefix("vectors ")
        return "" if flag in flags() else f"no vector has the flag {flag}"
    found = re.fullmatch(r"(test_\w+)::(test_\w+)(?:\[(.+)\])?", reference)
    if found is None:
        return "expected test_FILE::test_NAME, test_FILE::test_NAME[row] or vectors FLAG"
    name, test, row = found.groups()
    if test not in functions(name):
        return f"tests/adversary/{name}.py has no {test}"
    if row is not None and row not in functions(name)[test].split("\n"):
        return f"tests/adversary/{name}.py: {test} has no row {row!r}"
    return ""


def test_every_attack_has_a_line() -> None:
    assert list(lines()) == ROWS


@pytest.mark.parametrize("row", ROWS)
def test_the_line_of_an_attack_is_whole(row: str) -> None:
    """Attack, game, who notices at which step or that nobody does, and tests, each of which exists."""
    attack, game, noticed, tests = lines()[row]
    assert attack
    assert set(game.split(", ")) <= {"1", "2", "3"}
    assert (
        "**not" in noticed.lower() or "no check" in noticed or any(re.search(rf"\b{step}\b", noticed) for step in STEPS)
    )
    named = re.findall(r"`([^`]+)`", tests)
    assert any(not reference.startswith("vectors ") for reference in named), f"{row}: no test of tests/adversary"
    wrong = {reference: why for reference in named if (why := missing(reference))}
    assert not wrong, f"SECURITY.md, row {row}: {wrong}"


def test_tests_that_are_named_after_an_attack_are_of_a_row() -> None:
    """A test ``test_t5_..`` or a table row ``T5 ..`` is about an attack of the catalogue."""
    for path in Path(__file__).parent.glob("test_*.py"):
        for name, texts in functions(path.stem).items():
            rows = re.findall(r"(?<=_)t(\d+)(?=_)", name) + re.findall(r"^T(\d+) ", texts, re.MULTILINE)
            assert {f"T{number}" for number in rows} <= set(ROWS), f"{path.name}: {name}"


@pytest.mark.parametrize(
    "reference",
    [
        "vectors NoSuchFlag", "test_certificate_game::test_that_is_none", "test_that_is_none::test_t11_expired",
        "test_certificate_game::test_weak_patches[T99 no such row]", "test_t11_expired", "test_certificate_game::test_t11_expired[a row]",
    ],
)  # fmt: skip
def test_a_reference_to_nothing_is_noticed(reference: str) -> None:
    assert missing(reference)
