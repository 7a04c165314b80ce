"""What this installation can do: what is installed, what is missing, and the exact line that installs it.

Auditors need the base part only; owners need the prover's part too. The arithmetic that binary32
claims speak of (MATHS 2) is tried out on this machine, because a process-wide switch that flushes
subnormals, or a BLAS that multiplies in fewer bits, would leave the trust base.

Source: FORMATS section 3 (``doctor``), SECURITY.md (trust base).
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from prune_verify import __version__

__all__ = ["Finding", "examine", "exit_code", "render", "report"]

Part = Literal["base", "prover", "optional"]
Status = Literal["ok", "missing", "problem"]

MINIMUM_PYTHON = (3, 11)
BASE: dict[str, str] = {"numpy": "1.26", "onnx": "1.21", "cryptography": "42"}
PROVER: dict[str, str] = {
    "torch": "2.4",
    "z3-solver": "4.13",
    "onnxruntime": "1.18",
    "scipy": "1.11",
    "scikit-learn": "1.4",
    "appdirs": "1.4",
    "tqdm": "4.66",
    "packaging": "24",
    "joblib": "1.5",
}
# Extras that are neither of the two: what each is for, and its packages.
EXTRAS: dict[str, tuple[str, dict[str, str]]] = {
    "exact": ("verify --exact is slow without it", {"python-flint": "0.6"}),
    "smt": ("for verify --resolve-smt", {"z3-solver": "4.13", "cvc5": "1.2"}),
    "endpoint": ("for audit", {"urllib3": "2.5", "scipy": "1.11"}),
    "hsm": (
        "for keys on PKCS#11 tokens and key services",
        {"securesystemslib": "1.2", "python-pkcs11": "0.8", "asn1crypto": "1.5"},
    ),
    "cluster": ("for certify on a Dask cluster", {"distributed": "2024.8"}),
    "plots": ("for pictures of benchmarks and measurements", {"matplotlib": "3.8"}),
}
_MODULE = {"z3-solver": "z3", "scikit-learn": "sklearn", "python-flint": "flint", "python-pkcs11": "pkcs11"}
# What is installed is not sought again: these lines add what is missing, wherever this package came from.
_INSTALL_BASE = "pip install prune-verify"
_INSTALL_PROVER = "pip install 'prune-verify[prover]'"
_INSTALL_AUTO_LIRPA = "pip install --no-deps auto_LiRPA==0.3"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_WIDTH = 24


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        name: what was looked at.
        part: who needs it: ``base`` (everybody), ``prover`` (owners) or ``optional``.
        status: ``ok``, ``missing`` or ``problem``.
        detail: the version found, or what is wrong, in one sentence.
        fix: a command that puts it right, or one sentence; empty when there is nothing to do.

    """

    name: str
    part: Part
    status: Status
    detail: str
    fix: str = ""


def _release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: ``2.13.0+cpu`` is (2, 13, 0)."""
    numbers: list[int] = []
    for piece in version.partition("+")[0].split("."):
        digits = piece[: len(piece) - len(piece.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
        if digits != piece:
            break
    return tuple(numbers)


def _package(name: str, minimum: str, part: Part, fix: str) -> Finding:
    """A distribution's presence and version; the small packages of the base are imported too."""
    module = _MODULE.get(name, name)
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, part, "missing", f"not installed, needed at {minimum} or newer", fix)
    if _release(version) < _release(minimum):
        return Finding(name, part, "problem", f"{version} is older than {minimum}", fix)
    if importlib.util.find_spec(module) is None:
        return Finding(name, part, "problem", f"{version} is registered but its files are gone", fix)
    if part == "base":
        try:
            importlib.import_module(module)
        except ImportError as error:
            return Finding(name, part, "problem", f"{version} cannot be imported: {error}", fix)
    return Finding(name, part, "ok", version)


def _extra(name: str, purpose: str, packages: dict[str, str]) -> Finding:
    """An extra: every package of it, or which are not as they should be."""
    fix = f"pip install 'prune-verify[{name}]'"
    found = [_package(package, minimum, "optional", fix) for package, minimum in packages.items()]
    wrong = [f for f in found if f.status != "ok"]
    if not wrong:
        return Finding(name, "optional", "ok", ", ".join(f"{f.name} {f.detail}" for f in found))
    detail = "; ".join(f"{f.name}: {f.detail}" for f in wrong)
    status: Status = "problem" if any(f.status == "problem" for f in wrong) else "missing"
    return Finding(name, "optional", status, f"{purpose}; {detail}", fix)


def _python() -> Finding:
    """The interpreter: CPython, new enough."""
    have = f"{platform.python_implementation()} {platform.python_version()} on {platform.system()} {platform.machine()}"
    wanted = ".".join(map(str, MINIMUM_PYTHON))
    if sys.version_info[:2] < MINIMUM_PYTHON:
        return Finding(
            "python", "base", "problem", f"{have}: older than {wanted}", f"install CPython {wanted} or newer"
        )
    if platform.python_implementation() != "CPython":
        return Finding("python", "base", "problem", f"{have}: not CPython, the trust base", f"install CPython {wanted}")
    return Finding("python", "base", "ok", have)


def _auto_lirpa() -> Finding:
    """The bound library, imported as the prover imports it: its release needs adaptations, and may not take them."""
    from prune_verify.bounds.compat import auto_lirpa
    from prune_verify.bounds.errors import BoundsUnavailableError

    try:
        version = importlib.metadata.version("auto_LiRPA")
    except importlib.metadata.PackageNotFoundError:
        detail = "not installed; in no extra, because its declared torch<1.13 resolves beside no current torch"
        return Finding("auto_LiRPA", "prover", "missing", detail, _INSTALL_AUTO_LIRPA)
    try:
        auto_lirpa()
    except BoundsUnavailableError as error:
        reason = str(error).splitlines()[-1].strip("()")
        return Finding("auto_LiRPA", "prover", "problem", f"{version}: {reason}", _INSTALL_AUTO_LIRPA)
    return Finding("auto_LiRPA", "prover", "ok", version)


def _rounding_problem() -> str:
    """What is not IEEE-754 binary32, rounding to nearest even with subnormals, in numpy here; empty when it is."""
    import numpy as np

    def same(found: object, wanted: object) -> bool:
        # Whole arrays, so that the vector instructions that real checks run on are the ones tried.
        return bool(np.array_equal(np.asarray(found), np.full(64, wanted, np.float32)))

    def each(value: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return np.full(64, value, np.float32)

    if not same(each(2.0**-126) * each(0.5), 2.0**-127) or not same(each(2.0**-149) + each(0), 2.0**-149):
        return "subnormal numbers are flushed to zero"
    if not same(each(1) + each(2.0**-24), 1.0) or not same(each(1 + 2.0**-23) + each(2.0**-24), 1 + 2.0**-22):
        return "sums do not round to nearest even"
    if not same(each(2.0**24) + each(1) - each(2.0**24), 0.0):
        return "sums are kept in more than 24 bits"
    # 13-bit odd numbers times 4-bit ones: every partial sum is exact in 24 bits, in any order, and in fewer none is.
    odd = np.arange(4097, 4097 + 2 * 256, 2, dtype=np.float32).reshape(16, 16)
    small = np.arange(256, dtype=np.float32).reshape(16, 16) % 16
    if not np.array_equal((odd @ small).astype(np.int64), odd.astype(np.int64) @ small.astype(np.int64)):
        return "matrix products are computed in fewer than 24 bits"
    return ""


def _arithmetic() -> Finding:
    """That numpy's binary32 here is the arithmetic that the claims speak of."""
    try:
        problem = _rounding_problem()
    except ImportError:
        return Finding("arithmetic", "base", "problem", "not tried out: there is no numpy", _INSTALL_BASE)
    if problem:
        fix = "look for a library or variable that sets flush-to-zero or fast maths in this process, and unset it"
        return Finding("arithmetic", "base", "problem", problem, fix)
    return Finding("arithmetic", "base", "ok", "IEEE-754 binary32, nearest even, subnormals kept, exact small products")


def _writable(name: str, folder: Callable[[], Path], fix: str) -> Finding:
    """That a file can be made in the folder: owners write there, auditors need not."""
    try:
        place = folder()
        with tempfile.TemporaryFile(dir=place):
            return Finding(name, "optional", "ok", f"{place} can be written")
    except OSError as error:
        return Finding(name, "optional", "problem", f"cannot be written: {error.strerror or error}", fix)


def _browser() -> Finding:
    """A browser is used by this project's own tests of the HTML report, and by nothing else."""
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if found:
        return Finding("browser", "optional", "ok", found)
    return Finding("browser", "optional", "missing", "only tests of the HTML report use one", "install chromium")


def report() -> list[Finding]:
    """Every finding, the base part first.

    Source: FORMATS section 3.
    """
    return [
        _python(),
        *(_package(name, minimum, "base", _INSTALL_BASE) for name, minimum in BASE.items()),
        _arithmetic(),
        *(_package(name, minimum, "prover", _INSTALL_PROVER) for name, minimum in PROVER.items()),
        _auto_lirpa(),
        *(_extra(name, purpose, packages) for name, (purpose, packages) in EXTRAS.items()),
        _writable("working folder", Path.cwd, "run from a folder of yours, or give --out"),
        _writable("temporary folder", lambda: Path(tempfile.gettempdir()), "set TMPDIR to a folder of yours"),
        _browser(),
    ]


def _whole(findings: list[Finding], part: Part) -> bool:
    return all(f.status == "ok" for f in findings if f.part == part)


def exit_code(findings: list[Finding]) -> int:
    """0 when the base part is whole, so that certificates can be checked here; 2 otherwise."""
    return 0 if _whole(findings, "base") else 2


def _summary(findings: list[Finding]) -> list[str]:
    check = "can" if _whole(findings, "base") else "CANNOT"
    repair = "can" if _whole(findings, "base") and _whole(findings, "prover") else "CANNOT"
    return [
        f"This installation {check} check certificates (verify, inspect).",
        f"This installation {repair} make them (repair, certify, demo).",
    ]


def render(findings: list[Finding]) -> str:
    """The report for a person: one line a finding, the fix under it, and what follows from all of them."""
    lines = [f"prune-verify {__version__}"]
    for finding in findings:
        head = f"[{finding.status}]"
        lines.append(f"{head:<10}{finding.part:<10}{finding.name:<{_WIDTH}}{finding.detail}".rstrip())
        if finding.fix:
            lines.append(f"{'':<20}{'fix:':<{_WIDTH}}{finding.fix}")
    return "\n".join([*lines, *_summary(findings)])


def examine() -> tuple[int, str, dict[str, object]]:
    """The verb ``doctor``: exit code, text for a person, one object for ``--json``."""
    findings = report()
    data: dict[str, object] = {
        "version": __version__,
        "canCheck": _whole(findings, "base"),
        "canProve": _whole(findings, "base") and _whole(findings, "prover"),
        "findings": [asdict(finding) for finding in findings],
    }
    return exit_code(findings), render(findings), data
