"""What README shows is what happens: every console block is run and compared, line by line."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```console\n\$ (.*?)\n(.*?)```", TEXT, flags=re.DOTALL)


def matches(expected: list[str], found: list[str]) -> bool:
    """Lines equal; ``...`` inside a line is any text, ``...`` alone any lines."""
    if not expected:
        return not found
    if expected[0] == "...":
        return any(matches(expected[1:], found[i:]) for i in range(len(found) + 1))
    pattern = ".*".join(re.escape(part) for part in expected[0].split("..."))
    return bool(found) and re.fullmatch(pattern, found[0]) is not None and matches(expected[1:], found[1:])


@pytest.mark.parametrize(("command", "shown"), BLOCKS, ids=["verified", "refused"])
def test_console_blocks(command: str, shown: str) -> None:
    words = shlex.split(command)
    assert words[0] == "python"
    done = subprocess.run(
        [sys.executable, *words[1:]],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert matches(shown.splitlines(), done.stdout.splitlines()), done.stdout + done.stderr
    assert done.returncode == (0 if "VERIFIED" in shown else 1)


def test_the_blocks_show_a_verified_and_a_rejected_certificate() -> None:
    assert [("VERIFIED" in shown, "REJECTED" in shown) for _, shown in BLOCKS] == [(True, False), (False, True)]


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert "://" in target or (ROOT / target).exists(), target


def test_the_two_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test", "check", "test-full"):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_verbs_named_in_the_readme_are_verbs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prune_verify.cli", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for verb in set(re.findall(r"prune-verify (\w+) ", TEXT)):
        if verb not in {"patches", "or"}:
            assert re.search(rf"^    {verb}\b", done.stdout, flags=re.MULTILINE), verb
