"""The base install and the checker's tests on every Python that pyproject.toml names.

``make pythons PYTHONS="python3.12 /opt/python3.13/bin/python3"`` names interpreters (``PRUNE_VERIFY_PYTHONS``); without
it they are those on the PATH, pyenv's among them. Each gets a fresh environment, for which a package registry is needed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
VERSIONS = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
OTHERS = [v for v in VERSIONS if v != f"{sys.version_info.major}.{sys.version_info.minor}"]  # ours runs in `make test`
# Beside the base install: what runs the tests, and what they ask for a second opinion.
TOOLS = ("pytest", "hypothesis", "jsonschema", "in-toto-attestation", "onnxruntime")
TESTS = ("tests/checker", "tests/test_architecture.py", "tests/test_conformance.py", "tests/test_vectors.py")
# These import the prover, and so torch.
LEFT_OUT = [
    f"--ignore=tests/checker/test_{name}.py"
    for name in ("check_proof", "hold_head", "minimality", "shift_minimality", "sites")
]


def version_of(python: str, wanted: str) -> str:
    """``3.12`` where a command is such a Python; pyenv's commands are asked for the wanted one."""
    code = "import sys; print('%d.%d' % sys.version_info[:2], sys.executable)"
    try:
        done = subprocess.run(
            [python, "-c", code],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYENV_VERSION": wanted},
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def interpreter(version: str) -> str:
    """Where a Python of this version is; skips where none is."""
    named = os.environ.get("PRUNE_VERIFY_PYTHONS", "").split()
    for python in named or [f"python{version}"]:
        found, _, place = version_of(python, version).partition(" ")
        if found == version:
            return place
    pytest.skip(f"no Python {version} {'among ' + ' '.join(named) if named else 'on the PATH'}")


@pytest.mark.slow
@pytest.mark.parametrize("version", OTHERS)
def test_the_checker_on_another_python(version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env = {**os.environ, "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([interpreter(version), "-m", "venv", tmp_path / "env"], check=True, env=env)
    python = tmp_path / "env" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", ROOT / "constraints.txt"]
    subprocess.run([*pip, f"{ROOT}[exact,smt]", *TOOLS], check=True, env=env)
    words = ["-q", "-p", "no:cacheprovider", "-m", "not slow and not prover", *LEFT_OUT, *TESTS]
    done = subprocess.run(
        [python, "-m", "pytest", *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]
    last = done.stdout.splitlines()[-1]
    with capsys.disabled():
        sys.stdout.write(f"\nPython {version}: {last}\n")
    assert int(re.findall(r"(\d+) passed", last)[0]) > 3000


def test_what_is_left_out_imports_the_prover() -> None:
    for word in LEFT_OUT:
        text = (ROOT / word.partition("=")[2]).read_text(encoding="utf-8")
        assert re.search(r"^(from|import) prune_verify\.(certify|repair|cli|bounds)", text, re.MULTILINE), word
