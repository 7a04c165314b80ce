"""What README shows first is what happens, in a process of its own; tests/docs runs the rest of it and every page."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.documents import Command, blocks
from tests.docs.reader import matches

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    command for block in blocks(TEXT, "README.md") if block.language == "console" for command in block.commands()
]


@pytest.mark.parametrize("command", COMMANDS[:2], ids=["verified", "refused"])
def test_the_auditors_commands(command: Command) -> None:
    words, shown = shlex.split(command.line), list(command.shown)
    assert words[:4] == ["python", "-P", "-m", "prune_verify.checker"]
    done = subprocess.run(
        [sys.executable, *words[1:]],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert matches(shown, done.stdout.splitlines()), done.stdout + done.stderr
    assert done.returncode == (0 if "VERIFIED" in shown[0] else 1)


def test_it_opens_with_a_verified_and_a_rejected_certificate() -> None:
    shown = [command.shown[0] for command in COMMANDS[:2]]
    assert [("VERIFIED" in line, "REJECTED" in line) for line in shown] == [(True, False), (False, True)]


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.md")), ids=lambda path: path.stem)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")):
        assert "://" in target or (ROOT / target).exists(), target


def test_the_two_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test", "check", "test-full", "docs"):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
