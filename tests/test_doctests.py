"""Every example in a docstring says what happens; each runs in an empty folder of its own."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "prune_verify"
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")]


def dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_the_python_interface_has_an_example() -> None:
    assert "prune_verify.api" in {dotted(path) for path in MODULES}


@pytest.mark.prover
@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_examples_say_what_happens(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(importlib.import_module(dotted(path)), optionflags=doctest.FAIL_FAST)
    assert found.attempted
    assert not found.failed
