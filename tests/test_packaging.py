"""What is handed out: a wheel and an sdist that anyone can make again, extras that say what they are for, one-file checker.

The slow tests make fresh environments, for which they need a package registry.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))
EIGHT = {"numpy", "onnx", "cryptography", "protobuf", "ml-dtypes", "typing-extensions", "cffi", "pycparser"}
EXAMPLES = ROOT / "certs" / "examples"
IN_GIT = pytest.mark.skipif(
    not (ROOT / ".git").exists(), reason="not a checkout: which files belong to it is not known"
)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def run(*command: str | Path, cwd: Path, code: int = 0, **environment: str) -> str:
    """What a command prints, in an environment in which nothing points to this checkout."""
    told = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "SOURCE_DATE_EPOCH"}}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**told, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def verify_words(example: str) -> list[str | Path]:
    folder = EXAMPLES / example
    words: list[str | Path] = ["verify", folder / "digits.unlearn.json"]
    for name in ("base.onnx", "patched.onnx", "trust.json", "policy.toml", "forget.npz", "retain.npz"):
        words += [f"--{name.partition('.')[0]}", folder / name]
    return words


# --- what pyproject.toml says ---


def test_a_base_install_has_eight_packages() -> None:
    """Followed through the installed packages' own metadata, extras left out."""
    found, todo = set(), [Requirement(r) for r in PROJECT["dependencies"]]
    while todo:
        asked = todo.pop()
        if normal(asked.name) in found or (asked.marker and not asked.marker.evaluate({"extra": ""})):
            continue
        found.add(normal(asked.name))
        todo += [Requirement(r) for r in importlib.metadata.requires(asked.name) or []]
    assert found == EIGHT


def test_every_extra_is_one_that_documents_name() -> None:
    named = {"prover", "cluster", "endpoint", "smt", "hsm", "exact", "plots", "test"}
    assert named <= set(EXTRAS) <= named | {"docs"}


def test_auto_lirpa_is_in_none() -> None:
    asked = [r for listed in [PROJECT["dependencies"], *EXTRAS.values()] for r in listed]
    assert not [r for r in asked if "lirpa" in r.lower()]


@pytest.mark.parametrize("where", ["dependencies", *EXTRAS])
def test_what_is_tested_is_what_is_accepted(where: str) -> None:
    """Every requirement has a pin, and takes it."""
    pins = {normal(name): version for name, version in PINS.items()}
    for text in EXTRAS.get(where) or PROJECT["dependencies"]:
        asked = Requirement(text)
        assert normal(asked.name) in pins, f"constraints.txt pins no {asked.name}"
        assert asked.specifier.contains(pins[normal(asked.name)]), f"{text} does not take {pins[normal(asked.name)]}"


def test_the_pythons_that_are_named_are_those_from_the_oldest_on() -> None:
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert PROJECT["requires-python"] == f">={named[0]}"
    assert named == [f"3.{minor}" for minor in range(11, 11 + len(named))]


# --- the checker as one file ---


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory):
    """Commits today's files in a new repository; the same commit wherever and whenever it is made."""

    def lay(name: str, umask: int = 0o022) -> Path:
        folder = tmp_path_factory.mktemp("checkout") / name
        before = os.umask(umask)
        try:
            for path in run("git", "ls-files", "-co", "--exclude-standard", "-z", cwd=ROOT).split("\0"):
                if path and (ROOT / path).is_file():
                    (folder / path).parent.mkdir(parents=True, exist_ok=True)
                    (folder / path).write_bytes((ROOT / path).read_bytes())
            run("git", "init", "-q", cwd=folder)
            run("git", "add", "-A", cwd=folder)
            who = {
                f"GIT_{w}_{k}": v for w in ("AUTHOR", "COMMITTER") for k, v in (("NAME", "N"), ("EMAIL", "n@example"))
            }
            when = {"GIT_AUTHOR_DATE": "@1780000000 +0000", "GIT_COMMITTER_DATE": "@1780000000 +0000"}
            run("git", "commit", "-q", "-m", "all", cwd=folder, **who, **when)
        finally:
            os.umask(before)
        return folder

    return lay


def made(folder: Path, what: str, out: Path, umask: int = 0o022) -> dict[str, bytes]:
    """What ``make dist`` or ``make zipapp`` writes there, by name; what they print is checked."""
    before = os.umask(umask)
    try:
        shown = run(sys.executable, ".ci/dist.py", what, "--out", out, cwd=folder)
    finally:
        os.umask(before)
    found = {path.name: path.read_bytes() for path in out.iterdir()}
    printed = {Path(path).name: digest for digest, path in (line.split("  ") for line in shown.splitlines())}
    assert printed == {name: hashlib.sha256(data).hexdigest() for name, data in found.items()}
    return found


LOADED = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from prune_verify.checker.__main__ import main
code = main(sys.argv[1:])
places = {str(m.__file__) for n, m in sys.modules.items() if n.split(".")[0] == "prune_verify"}
print(code, {place.startswith(sys.path[0]) for place in places})
"""


@IN_GIT
def test_the_checker_as_one_file(checkout, tmp_path: Path) -> None:
    """The same bytes twice; VERIFIED and REJECTED as from the package; nothing is loaded from elsewhere."""
    first = made(checkout("one"), "zipapp", tmp_path / "a")
    assert first == made(checkout("another", 0o077), "zipapp", tmp_path / "b", 0o077)
    file = tmp_path / "a" / "prune-verify-checker.pyz"
    held = zipfile.ZipFile(file).namelist()
    own = {f"prune_verify/checker/{p.name}" for p in (ROOT / "prune_verify" / "checker").glob("*.py")}
    assert set(held) == own | {"__main__.py", "prune_verify/__init__.py"}
    good, bad = verify_words("digits-records"), verify_words("digits-byte-changed_fail")
    assert run(sys.executable, "-P", file, *good, cwd=tmp_path).startswith("VERDICT: VERIFIED code=OK ")
    assert run(sys.executable, "-P", file, *bad, cwd=tmp_path, code=1).startswith("VERDICT: REJECTED code=E_SIGNATURE ")
    assert run(sys.executable, "-P", "-c", LOADED, file, *good, cwd=tmp_path).endswith("\n0 {True}\n")


# --- wheel and sdist ---


@pytest.fixture(scope="module")
def packages(checkout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with wheel and sdist of today's files."""
    out = tmp_path_factory.mktemp("dist")
    made(checkout("first"), "dist", out)
    return out


@pytest.fixture(scope="module")
def wheel(packages: Path) -> Path:
    return next(packages.glob("*.whl"))


@pytest.fixture(scope="module")
def sdist(packages: Path) -> Path:
    return next(packages.glob("*.tar.gz"))


def fresh(folder: Path, *requirements: str | Path) -> Path:
    """The Python of a new environment with these requirements, at the versions of constraints.txt."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", *requirements, cwd=folder)
    return python


@pytest.fixture(scope="module")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment in which only the wheel is installed."""
    return fresh(tmp_path_factory.mktemp("base"), wheel)


@IN_GIT
@pytest.mark.slow
def test_they_are_made_again_to_the_byte(packages: Path, checkout, tmp_path: Path) -> None:
    """At another time, in another folder, by somebody with another umask."""
    again = made(checkout("somewhere-else", 0o077), "dist", tmp_path / "again", 0o077)
    assert again == {path.name: path.read_bytes() for path in packages.iterdir()}


@IN_GIT
@pytest.mark.slow
def test_the_sdist_makes_the_same_wheel(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    assert made(folder, "dist", tmp_path / "out")[wheel.name] == wheel.read_bytes()


@IN_GIT
@pytest.mark.slow
def test_what_is_in_them(wheel: Path, sdist: Path) -> None:
    tracked = set(run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).splitlines())
    held = set(zipfile.ZipFile(wheel).namelist())
    info = f"{wheel.name.split('-py3')[0]}.dist-info"
    own = {path for path in tracked if path.startswith("prune_verify/")}
    spec = {"prune_verify/checker/SPEC.md", "prune_verify/checker/DIVERGENCES.md"}
    assert {"prune_verify/py.typed", "prune_verify/audit/report.css", "prune_verify/completion/prune-verify.zsh"} <= own
    assert {name for name in held if not name.startswith(info)} == own | spec
    assert {f"{info}/METADATA", f"{info}/licenses/LICENSE", f"{info}/entry_points.txt"} <= held
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names - tracked <= {"PKG-INFO"}
    assert {"certs/SPEC.md", "tests/test_packaging.py", "constraints.txt", "Makefile", ".ci/dist.py", *own} <= names


@IN_GIT
@pytest.mark.slow
def test_the_metadata_is_valid(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA")))
    metadata = Metadata.from_email(text, validate=True)
    assert metadata.description_content_type == "text/markdown"
    assert set(metadata.provides_extra or []) == set(EXTRAS)
    python = fresh(tmp_path / "tools", "twine")
    assert run(python, "-m", "twine", "check", "--strict", wheel, sdist, cwd=tmp_path).count("PASSED") == 2


@IN_GIT
@pytest.mark.slow
def test_an_auditor_needs_the_wheel_alone(base: Path, tmp_path: Path) -> None:
    """Verdicts, doctor, completion and the specification, with nothing of this checkout on the path."""
    command = base.parent / "prune-verify"
    assert run(command, *verify_words("digits-records"), cwd=tmp_path).startswith("VERDICT: VERIFIED code=OK ")
    bad = verify_words("digits-byte-changed_fail")
    assert run(base, "-P", "-m", "prune_verify.checker", *bad, cwd=tmp_path, code=1).startswith("VERDICT: REJECTED ")
    told = json.loads(run(command, "doctor", "--json", cwd=tmp_path))
    assert (told["canCheck"], told["canProve"]) == (True, False)
    assert "_shtab_prune_verify" in run(command, "completion", "bash", cwd=tmp_path)
    code = (
        "from importlib.resources import files; print((files('prune_verify.checker') / 'SPEC.md').read_text(), end='')"
    )
    assert run(base, "-c", code, cwd=tmp_path) == (ROOT / "certs" / "SPEC.md").read_text(encoding="utf-8")
    report = tmp_path / "report.html"
    run(command, *verify_words("digits-records"), "--report", report, cwd=tmp_path)
    assert (ROOT / "prune_verify" / "audit" / "report.css").read_text(encoding="utf-8").split("\n")[
        0
    ] in report.read_text()


@IN_GIT
@pytest.mark.slow
def test_the_line_of_doctor_installs_what_is_missing(base: Path, tmp_path: Path) -> None:
    """An extra is added to what is installed; this package is not sought in the registry."""
    command = base.parent / "prune-verify"

    def found() -> dict[str, str]:
        told = json.loads(run(command, "doctor", "--json", cwd=tmp_path))
        return next(f for f in told["findings"] if f["name"] == "exact")

    assert found()["status"] == "missing"
    words = found()["fix"].replace("'", "").split()
    assert words[:2] == ["pip", "install"]
    run(base, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", *words[2:], cwd=tmp_path)
    assert found()["status"] == "ok"


@IN_GIT
@pytest.mark.slow
def test_pipx_runs_it_without_an_install(checkout, tmp_path: Path) -> None:
    pipx = fresh(tmp_path / "tools", "pipx").parent / "pipx"
    words = [pipx, "run", "--spec", ".", "prune-verify", *verify_words("digits-records")]
    told = run(
        *words, cwd=checkout("pipx"), PIPX_HOME=str(tmp_path / "pipx"), PIP_CONSTRAINT=str(ROOT / "constraints.txt")
    )
    assert told.startswith("VERDICT: VERIFIED code=OK ")


@IN_GIT
@pytest.mark.slow
@pytest.mark.prover
def test_an_owner_runs_the_demo_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """As README says for owners, in an environment of its own, far from any checkout."""
    python = fresh(tmp_path / "env", f"{wheel}[prover]")
    lirpa = re.search(r"auto_LiRPA==\S+", (ROOT / "Makefile").read_text(encoding="utf-8"))
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", lirpa.group(), cwd=tmp_path)
    command = python.parent / "prune-verify"
    assert json.loads(run(command, "doctor", "--json", cwd=tmp_path))["canProve"] is True
    told = run(command, "demo", "--quiet", "--out", tmp_path / "out", cwd=tmp_path)
    assert "VERIFIED" in told
    assert list((tmp_path / "out").rglob("*.unlearn.json"))
