"""The annotations of the Python interface hold: mypy takes right uses and refuses each wrong one, for the right reason."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
pytestmark = pytest.mark.prover  # with torch's own annotations


def found(name: str, cache: Path) -> list[tuple[int, str]]:
    """Line and error code of what mypy --strict says of a file."""
    words = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(cache)]
    config = ["--config-file", str(ROOT / "pyproject.toml")]
    done = subprocess.run([*words, *config, str(HERE / name)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    lines = re.findall(r"^.*?:(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.MULTILINE)
    assert len(lines) == done.stdout.count(": error:"), done.stdout
    return [(int(line), code) for line, code in lines]


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """The repository's own cache where `make types` has left one: reading torch's annotations anew takes a minute."""
    own = ROOT / ".mypy_cache"
    return own if own.is_dir() else tmp_path_factory.mktemp("mypy")


def test_right_uses_are_taken(cache: Path) -> None:
    assert found("accepted.py", cache) == []


def test_each_wrong_use_is_refused_for_its_reason(cache: Path) -> None:
    text = (HERE / "refused.py").read_text(encoding="utf-8").splitlines()
    wanted = [(place, mark[1]) for place, line in enumerate(text, 1) if (mark := re.search(r"  # ([\w-]+): ", line))]
    assert len(wanted) == 15
    assert found("refused.py", cache) == wanted
