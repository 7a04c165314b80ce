"""Make what is handed out: ``dist`` (wheel, sdist), ``zipapp`` (the checker as one file), ``size`` of a base install.

The bytes depend on the commit alone, not on when, where and by whom they are made: what git holds at HEAD is laid out
anew, and every time in it is the commit's. An unpacked sdist, which has no git, holds that time itself.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from time import gmtime

ROOT = Path(__file__).resolve().parents[1]
CHECKER = "prune-verify-checker.pyz"
_START = """\
import sys
from prune_verify.checker.__main__ import main
sys.exit(main())
"""


def _said(*command: str, cwd: Path = ROOT, **environment: str) -> bytes:
    """What git, pip or hatchling prints; ends with its complaints where it fails."""
    told = {**os.environ, **environment}
    done = subprocess.run(command, cwd=cwd, env=told, check=False, capture_output=True)  # noqa: S603 - as above
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.stderr.decode()}")
    return done.stdout


def sources(folder: Path) -> tuple[Path, str]:
    """The files of the last commit in a new folder, and its time; an unpacked sdist as it is."""
    if not (ROOT / ".git").exists():
        return ROOT, str(int((ROOT / "PKG-INFO").stat().st_mtime))
    with tarfile.open(fileobj=io.BytesIO(_said("git", "archive", "HEAD"))) as archive:
        archive.extractall(folder, filter="data")
    return folder, _said("git", "log", "-1", "--format=%ct").decode().strip()


def dist(out: Path, *targets: str) -> list[Path]:
    """Build with the hatchling that is installed here (constraints.txt), without a build environment of its own."""
    with tempfile.TemporaryDirectory() as laid, tempfile.TemporaryDirectory() as made:
        folder, epoch = sources(Path(laid))
        for target in targets:
            build = (sys.executable, "-m", "hatchling", "build", "-t", target, "-d", made)
            _said(*build, cwd=folder, SOURCE_DATE_EPOCH=epoch)
        return [Path(shutil.copy(path, out)) for path in sorted(Path(made).iterdir())]


def zipapp(out: Path) -> list[Path]:
    """The checker's files alone, and a start: ``python -P prune-verify-checker.pyz verify ...``."""
    with tempfile.TemporaryDirectory() as name:
        folder, epoch = sources(Path(name))
        package = folder / "prune_verify"
        files = {f"prune_verify/{p.relative_to(package)}": p.read_bytes() for p in package.glob("checker/*.py")}
        files |= {"prune_verify/__init__.py": (package / "__init__.py").read_bytes(), "__main__.py": _START.encode()}
    with zipfile.ZipFile(out / CHECKER, "w") as archive:
        for path, data in sorted(files.items()):
            entry = zipfile.ZipInfo(path, gmtime(int(epoch))[:6])
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return [out / CHECKER]


def size(_: Path) -> list[str]:
    """Packages and megabytes of a base install, at the versions of constraints.txt."""
    with tempfile.TemporaryDirectory() as name:
        (wheel,) = dist(Path(name), "wheel")
        place = Path(name) / "installed"
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--target", str(place))
        _said(*pip, "-c", str(ROOT / "constraints.txt"), str(wheel))
        packages = sorted(p.name.removesuffix(".dist-info") for p in place.glob("*.dist-info"))
        files = [p for p in place.rglob("*") if p.is_file()]
        whole = sum(p.stat().st_size for p in files) / 10**6
        bare = sum(p.stat().st_size for p in files if p.suffix != ".pyc") / 10**6
    others = [p for p in packages if not p.startswith("prune_verify-")]
    return [
        f"{len(others)} packages beside this one: {', '.join(others)}",
        f"{whole:.0f} MB, of which {whole - bare:.0f} MB are compiled Python (made at the first run or install)",
    ]


def main() -> None:
    """Make it, and say what was made."""
    parser = argparse.ArgumentParser(description="make what is handed out")
    parser.add_argument("what", choices=["dist", "zipapp", "size"], help="what is made")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", metavar="DIR", help="where (default: dist)")
    options = parser.parse_args()
    if options.what == "size":
        sys.stdout.write("\n".join(size(options.out)) + "\n")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    made = dist(options.out, "wheel", "sdist") if options.what == "dist" else zipapp(options.out)
    for path in made:
        sys.stdout.write(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path}\n")


if __name__ == "__main__":
    main()
