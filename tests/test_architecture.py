"""The house keeps its shape: what is trusted is small, stands alone, and imports nothing of the prover's."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "prune_verify"
CHECKER = PACKAGE / "checker"
DECIDES = (
    "network", "region", "claim", "rules", "patch", "rebuild", "sites", "interval", "relaxation", "relaxation_rules", "bounded_claims",
    "goals", "trees", "proof", "minimality", "shift_minimality", "identity",
)  # fmt: skip
# Ratchets: they may fall, and a change that needs more says why in DECISIONS.md.
MOST_TRUSTED = 13181
MOST_DECIDING = 5030
MOST_RULES = 400
MOST_PER_FILE = 500
MOST_PER_FUNCTION = 40
ALLOWED = {
    "onnx": {"load_onnx", "lower_onnx", "lower_layers", "lower_shapes", "row_graph"},
    "google": {"load_onnx"},
    "cryptography": {"envelope"},
    "flint": {"exact"},
}
EXAMPLE = ROOT / "certs" / "examples" / "digits-records"


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def imported(path: Path) -> set[str]:
    """Top-level modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def test_the_checker_imports_the_standard_library_numpy_and_little_else() -> None:
    for path in CHECKER.glob("*.py"):
        for name in imported(path):
            top = name.split(".")[0]
            if name.startswith("prune_verify.checker") or name == "prune_verify" or top in sys.stdlib_module_names:
                continue
            if top == "numpy":
                continue
            assert path.stem in ALLOWED.get(top, set()), f"{path.name} imports {name}"


def test_the_trusted_code_is_no_longer_than_agreed() -> None:
    trusted = sum(lines(path) for path in CHECKER.glob("*.py")) + lines(PACKAGE / "__init__.py")
    assert trusted <= MOST_TRUSTED
    assert sum(lines(CHECKER / f"{name}.py") for name in DECIDES) <= MOST_DECIDING
    assert lines(CHECKER / "rules.py") <= MOST_RULES


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    too_long = {str(p.relative_to(ROOT)): lines(p) for p in PACKAGE.rglob("*.py") if lines(p) > MOST_PER_FILE}
    assert not too_long


def test_functions_of_the_checker_are_short() -> None:
    too_long = []
    for path in CHECKER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
                doc = ast.get_docstring(node, clean=False)
                prose = len(doc.splitlines()) if doc else 0
                if node.end_lineno - node.lineno + 1 - prose > MOST_PER_FUNCTION:
                    too_long.append(f"{path.name}: {node.name}")
    assert not too_long


def test_names_say_what_is_in_them() -> None:
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        assert path.stem not in {"utils", "helpers", "common", "misc"}


def test_library_code_neither_prints_nor_asserts() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not isinstance(node, ast.Assert), f"{path}: assert in line {node.lineno}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", f"{path}: print in line {node.lineno}"
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{path}: bare except in line {node.lineno}"


def verify_words(example: Path) -> list[str]:
    """The arguments of ``verify`` for a committed example."""
    return [
        "verify", str(next(example.glob("*.unlearn.json"))), "--base", str(example / "base.onnx"),
        "--patched", str(example / "patched.onnx"), "--trust", str(example / "trust.json"),
        "--policy", str(example / "policy.toml"), "--forget", str(example / "forget.npz"),
        "--retain", str(example / "retain.npz"),
    ]  # fmt: skip


def test_the_checker_folder_works_lifted_out(tmp_path: Path) -> None:
    """Only the checker's files and the package's own ``__init__``; the prover's packages are blocked by name."""
    target = tmp_path / "prune_verify"
    target.mkdir()
    shutil.copy(PACKAGE / "__init__.py", target)
    shutil.copytree(CHECKER, target / "checker", ignore=shutil.ignore_patterns("__pycache__"))
    blocked = ("torch", "z3", "auto_LiRPA", "onnxruntime", "scipy", "sklearn", "tqdm")
    code = (
        f"import sys\nfor name in {blocked!r}: sys.modules[name] = None\n"
        "from prune_verify.checker.__main__ import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    for flags in ([], ["-O"]):
        done = subprocess.run(
            [sys.executable, *flags, "-c", code, *verify_words(EXAMPLE)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.startswith("VERDICT: VERIFIED code=OK ")


@pytest.mark.slow
def test_the_checker_runs_from_a_base_install(tmp_path: Path) -> None:
    """A fresh environment with the package and its declared dependencies only (needs a package registry)."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), str(ROOT)], check=True)
    listed = subprocess.run(
        [str(python), "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True
    ).stdout.lower()
    for name in ("torch", "z3", "lirpa", "onnxruntime", "scipy", "scikit"):
        assert name not in listed
    assert len(listed.split()) <= 8 + 3  # the eight packages, this one, pip and setuptools
    done = subprocess.run(
        [str(python), "-m", "prune_verify.checker", *verify_words(EXAMPLE)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("VERDICT: VERIFIED code=OK ")
