"""The doctor finds what is missing, names the line that installs it, and ends with 2 where checking is impossible."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from prune_verify import doctor
from prune_verify.bounds import compat
from prune_verify.bounds.errors import BoundsUnavailableError
from prune_verify.doctor import Finding

ROOT = Path(__file__).resolve().parents[1]


def found(name):
    return next(f for f in doctor.report() if f.name == name)


@pytest.fixture
def pretend(monkeypatch):
    """Versions as the table says; None is not installed."""
    real = importlib.metadata.version

    def install(**versions):
        def version(name):
            wanted = versions.get(name.replace("-", "_"), real)
            if wanted is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return real(name) if wanted is real else wanted

        monkeypatch.setattr(importlib.metadata, "version", version)

    return install


def declared(requirements):
    return {r.split(">=")[0]: r.split(">=")[1].split(",")[0] for r in requirements}


def test_the_tables_are_those_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert declared(project["dependencies"]) == doctor.BASE
    extras = project["optional-dependencies"]
    assert declared(extras["prover"]) == doctor.PROVER
    assert {name: declared(extras[name]) for name in doctor.EXTRAS} == {n: e[1] for n, e in doctor.EXTRAS.items()}
    assert set(extras) - {"test", "docs"} == {"prover", *doctor.EXTRAS}  # those two are for work on this project
    assert project["requires-python"] == ">=" + ".".join(map(str, doctor.MINIMUM_PYTHON))


def test_the_line_for_auto_lirpa_is_the_one_that_make_runs():
    assert f"AUTO_LIRPA := {doctor._INSTALL_AUTO_LIRPA.split()[-1]}\n" in (ROOT / "Makefile").read_text()


@pytest.mark.prover
def test_a_whole_installation():
    code, text, data = doctor.examine()
    assert code == 0
    assert data["canCheck"] is True
    assert data["canProve"] is True
    assert {f["status"] for f in data["findings"] if f["part"] != "optional"} == {"ok"}
    assert "This installation can make them" in text
    assert json.loads(json.dumps(data)) == data


@pytest.mark.parametrize("name", doctor.BASE)
def test_a_missing_base_package_ends_with_2(pretend, name):
    pretend(**{name: None})
    code, text, data = doctor.examine()
    assert code == 2
    assert (data["canCheck"], data["canProve"]) == (False, False)
    assert found(name).status == "missing"
    assert "pip install prune-verify" in text
    assert "CANNOT check" in text


@pytest.mark.parametrize("name", doctor.PROVER)
def test_a_missing_prover_package_is_stated_and_ends_with_0(pretend, name):
    pretend(**{name.replace("-", "_"): None})
    code, text, data = doctor.examine()
    assert code == 0
    assert (data["canCheck"], data["canProve"]) == (True, False)
    assert found(name).status == "missing"
    assert "pip install 'prune-verify[prover]'" in text
    assert "CANNOT make" in text


EXTRAS = [(extra, package) for extra, (_, packages) in doctor.EXTRAS.items() for package in packages]


@pytest.mark.parametrize(("extra", "package"), EXTRAS, ids=["-".join(e) for e in EXTRAS])
def test_a_missing_extra_names_the_exact_line(pretend, extra, package):
    pretend(**{package.replace("-", "_"): None})
    code, text, _ = doctor.examine()
    assert code == 0
    assert found(extra).part == "optional"
    assert found(extra).status == "missing"
    assert f"{package}: not installed" in found(extra).detail
    assert found(extra).fix == f"pip install 'prune-verify[{extra}]'"
    assert found(extra).fix in text


def test_an_extra_that_is_whole_names_its_versions(pretend):
    pretend(z3_solver="4.13", cvc5="1.2")
    assert found("smt") == Finding("smt", "optional", "ok", "z3-solver 4.13, cvc5 1.2")


def test_an_extra_that_is_too_old_is_a_problem(pretend):
    pretend(cvc5="1.1.9")
    assert found("smt").status == "problem"
    assert found("smt").detail == "for verify --resolve-smt; cvc5: 1.1.9 is older than 1.2"


def test_missing_auto_lirpa_names_the_exact_line(pretend):
    pretend(auto_LiRPA=None)
    code, text, _ = doctor.examine()
    assert code == 0
    assert found("auto_LiRPA").status == "missing"
    assert "pip install --no-deps auto_LiRPA==0.3" in text


def test_an_auto_lirpa_that_cannot_be_imported_is_a_problem(pretend, monkeypatch):
    def refuse():
        raise BoundsUnavailableError("there is no module appdirs")

    pretend(auto_LiRPA="0.3")
    monkeypatch.setattr(compat, "auto_lirpa", refuse)
    assert found("auto_LiRPA") == Finding(
        "auto_LiRPA", "prover", "problem", "0.3: there is no module appdirs", "pip install --no-deps auto_LiRPA==0.3"
    )


@pytest.mark.parametrize(
    ("version", "status"),
    [
        ("1.25.9", "problem"),
        ("1.26", "ok"),
        ("1.26.0rc1", "ok"),
        ("2.4.6+local.1", "ok"),
        ("0.9", "problem"),
        ("", "problem"),
    ],
)
def test_versions_are_compared_as_numbers(pretend, version, status):
    pretend(numpy=version)
    assert found("numpy").status == status


def test_a_base_package_that_cannot_be_imported_is_a_problem(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: True)
    assert doctor._package("onnx", "1.21", "base", "fix").status == "problem"


def test_files_that_are_gone_are_a_problem(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert "files are gone" in doctor._package("numpy", "1.26", "base", "fix").detail


@pytest.mark.parametrize(("what", "value"), [("python_implementation", "PyPy"), ("python_version", "3.11.0")])
def test_python_must_be_cpython(monkeypatch, what, value):
    monkeypatch.setattr(platform, what, lambda: value)
    assert found("python").status == ("problem" if value == "PyPy" else "ok")


def test_an_old_python_ends_with_2(monkeypatch):
    monkeypatch.setattr(doctor.sys, "version_info", (3, 10, 9))
    findings = doctor.report()
    assert findings[0].status == "problem"
    assert doctor.exit_code(findings) == 2


def _flush(x):
    return np.where(np.abs(x) < 2.0**-126, np.float32(0), x).astype(np.float32)


def _fewer_bits(x):
    # 11 significant bits, as matrix units of some accelerators keep.
    return (x.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)


class Altered(np.ndarray):
    """Arrays whose sums and products are altered as a broken environment would."""

    alter: ClassVar[dict] = {}

    def __array_ufunc__(self, ufunc, method, *inputs, **keywords):
        plain = [np.asarray(i) if isinstance(i, np.ndarray) else i for i in inputs]  # a bare number stays weak
        out = getattr(ufunc, method)(*plain, **keywords)
        if ufunc.__name__ in self.alter and out.dtype == np.float32:
            out = self.alter[ufunc.__name__](plain, out)
        return out.view(Altered) if isinstance(out, np.ndarray) else out


@pytest.mark.parametrize(
    ("alter", "problem"),
    [
        ({}, ""),
        ({"multiply": lambda _, out: _flush(out)}, "subnormal numbers are flushed to zero"),
        ({"add": lambda _, out: _flush(out)}, "subnormal numbers are flushed to zero"),
        ({"add": lambda _, out: np.nextafter(out, np.float32(np.inf))}, "subnormal numbers are flushed to zero"),
        (
            {"add": lambda given, out: np.where(given[1] == 2.0**-24, np.nextafter(out, np.float32(9)), out)},
            "sums do not round to nearest even",
        ),
        ({"subtract": lambda _, out: out + np.float32(1)}, "sums are kept in more than 24 bits"),
        (
            {"matmul": lambda given, _: _fewer_bits(given[0]) @ _fewer_bits(given[1])},
            "matrix products are computed in fewer than 24 bits",
        ),
    ],
)
def test_arithmetic_that_is_not_ieee_is_named(monkeypatch, alter, problem):
    full, arange = np.full, np.arange
    monkeypatch.setattr(Altered, "alter", alter)
    monkeypatch.setattr(np, "full", lambda *a: full(*a).view(Altered))
    monkeypatch.setattr(np, "arange", lambda *a, **k: arange(*a, **k).view(Altered))
    assert doctor._rounding_problem() == problem
    finding = doctor._arithmetic()
    assert finding.status == ("problem" if problem else "ok")


def test_without_numpy_the_arithmetic_is_a_problem(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert doctor._arithmetic() == Finding(
        "arithmetic", "base", "problem", "not tried out: there is no numpy", "pip install prune-verify"
    )


def test_a_folder_that_cannot_be_written_is_a_problem_and_ends_with_0(monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    findings = doctor.report()
    assert {f.name for f in findings if f.status == "problem"} == {"working folder", "temporary folder"}
    assert doctor.exit_code(findings) == 0


@pytest.mark.parametrize("path", [None, "/somewhere/chromium"])
def test_a_browser_is_optional(monkeypatch, path):
    monkeypatch.setattr(doctor.shutil, "which", lambda _name: path)
    assert found("browser").status == ("ok" if path else "missing")
    assert doctor.exit_code([found("browser")]) == 0


def test_every_finding_that_is_not_ok_says_what_to_do(pretend):
    pretend(numpy=None, torch="2.0", auto_LiRPA=None)
    findings = doctor.report()
    assert all(bool(f.fix) is (f.status != "ok") for f in findings)
    text = doctor.render(findings)
    assert all(f.detail in text and f.fix in text for f in findings)


def test_the_package_itself_imports_nothing_heavy():
    code = "import sys, prune_verify.doctor; print(sorted({'numpy', 'onnx', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
