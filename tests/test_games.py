"""The types of the code mirror the games of SECURITY.md: who supplies what, and what decides a claim knows no certificate."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from prune_verify.checker import rules
from prune_verify.checker.claim import CLAIM_KINDS, Problem
from prune_verify.checker.verify_claims import SUPPLIED_BY, Inputs
from tests.test_architecture import CHECKER, DECIDES, ROOT, imported

SECURITY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
OWNERS = {name for name, who in SUPPLIED_BY.items() if who == "owner"}
STEERS = ("statement", "claim_json", "envelope", "policy", "verify", "verify_claims", "verdict")


def section(title: str) -> str:
    """The text of one section of SECURITY.md."""
    found = re.search(rf"^#+ {re.escape(title)}.*?\n(.*?)(?=^#|\Z)", SECURITY, re.MULTILINE | re.DOTALL)
    assert found is not None, f"SECURITY.md has no section {title}"
    return found[1]


def test_every_input_has_one_supplier() -> None:
    assert {item.name for item in fields(Inputs)} == set(SUPPLIED_BY)


@pytest.mark.parametrize("who", ["owner", "auditor"])
def test_security_md_says_who_supplies_each_input(who: str) -> None:
    row = next(line for line in section("Who supplies what").splitlines() if line.startswith(f"| {who} |"))
    assert set(re.findall(r"`(\w+)`", row)) >= {name for name, by in SUPPLIED_BY.items() if by == who}
    assert not set(re.findall(r"`(\w+)`", row)) & {name for name, by in SUPPLIED_BY.items() if by != who}


def test_what_the_owner_supplies_are_names_of_files() -> None:
    kinds = {item.name: str(item.type) for item in fields(Inputs)}
    assert {kinds[name] for name in OWNERS} <= {
        "Path",
        "Path | None",
        "str | None",
    }  # forget and retain: kinds of files


def _uses(path: Path) -> Iterator[tuple[ast.AST, ast.Attribute]]:
    """Each ``inputs.NAME`` of the owner's, with the expression that it stands in."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    above = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in OWNERS:
            base = node.value
            name = base.attr if isinstance(base, ast.Attribute) else base.id if isinstance(base, ast.Name) else ""
            if name == "inputs":
                yield above[node], node


def test_nothing_is_compared_with_what_the_owner_supplies() -> None:
    """The owner's files are opened; no condition, bound or limit is read off their names."""
    count = 0
    for name in ("verify", "verify_claims"):
        for parent, node in _uses(CHECKER / f"{name}.py"):
            count += 1
            compared = isinstance(parent, ast.Compare) and not all(
                isinstance(op, ast.Is | ast.IsNot) for op in parent.ops
            )
            assert not compared, f"{name}.py:{node.lineno} compares inputs.{node.attr}"
            keyword = isinstance(parent, ast.keyword) and parent.arg is not None and "max" in parent.arg
            assert not keyword, f"{name}.py:{node.lineno} takes a limit from inputs.{node.attr}"
    assert count >= len(OWNERS) - 2


def test_what_decides_a_claim_knows_no_certificate() -> None:
    """A rule sees networks, a patch, the policy's domain, records, the claim and evidence: no count that was stated."""
    for module in DECIDES:
        found = {name.rpartition(".")[2] for name in imported(CHECKER / f"{module}.py")}
        assert not found & set(STEERS), f"{module}.py imports {sorted(found & set(STEERS))}"
    assert {item.name for item in fields(Problem) if item.init and not item.name.startswith("_")} == {
        "base", "patched", "patch", "domain", "forget", "retain", "exact",
    }  # fmt: skip


def test_limits_and_minima_are_the_policys() -> None:
    """No keyword of a limit is given a value of the statement's."""
    for module in ("verify", "verify_claims"):
        for node in ast.walk(ast.parse((CHECKER / f"{module}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg and node.arg.startswith(("max_", "min_", "limit", "domain")):
                assert "statement" not in ast.dump(node.value), f"{module}.py:{node.value.lineno}: {node.arg}"


# --- the lemmas ---


def test_every_rule_and_claim_kind_has_a_lemma() -> None:
    text = section("The lemmas")
    functions = {name for name in rules.__all__ if name.islower()} - {"separate", "separation_of"}
    missing = [name for name in (*sorted(functions), *CLAIM_KINDS) if f"`{name}`" not in text]
    assert not missing, f"SECURITY.md, The lemmas: no word about {', '.join(missing)}"


def test_every_file_that_security_md_names_exists() -> None:
    named = set(re.findall(r"`((?:tests|certs|prune_verify)/[\w./-]+)`", SECURITY))
    short = {f"tests/{name}" for name in re.findall(r"`((?:checker|properties|adversary)/test_\w+\.py)", SECURITY)}
    assert named | short
    missing = sorted(name for name in named | short if not (ROOT / name).exists())
    assert not missing


def test_every_section_of_spec_4_and_5_has_a_lemma() -> None:
    headings = re.findall(r"^### ([45]\.\d+)", (ROOT / "certs" / "SPEC.md").read_text(encoding="utf-8"), re.MULTILINE)
    text = section("The lemmas")
    assert [number for number in headings if not re.search(rf"\b{re.escape(number)}\b", text)] == []
