"""Run a program that checks certificates against these vectors; the standard library only. See README.md.

python run.py [--exit-codes] [--only N,N,..] PROGRAM [WORD ...]
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
COULD_NOT_RUN = 2


def evaluate(part: dict[str, Any], base: Path) -> bytes:
    """The bytes of an expression over the honest files in ``base``."""
    if "text" in part:
        return str(part["text"]).encode()
    if "base64" in part:
        return base64.b64decode(part["base64"])
    if "join" in part:
        return b"".join(evaluate(item, base) for item in part["join"])
    if "repeat" in part:
        return evaluate(part["repeat"], base) * int(part["count"])
    if "encode" in part:
        return base64.b64encode(evaluate(part["encode"], base))
    data, result, place = (base / part["base"]).read_bytes(), b"", 0
    for edit in part.get("edits", ()):
        result += data[place : edit["offset"]] + evaluate(edit["insert"], base)
        place = edit["offset"] + edit["delete"]
    return result + data[place:]


def _put(target: Path, part: dict[str, Any], base: Path, folder: Path) -> None:
    """One file, or what stands in its place."""
    if target.is_symlink() or target.is_file():
        target.unlink()
    target.parent.mkdir(parents=True, exist_ok=True)
    if "symlink" in part:
        target.symlink_to(part["symlink"])
    elif "hardlink" in part:
        os.link(folder / part["hardlink"], target)
    elif "fifo" in part:
        os.mkfifo(target)
    elif "folder" in part:
        target.mkdir()
    elif "sparse" in part:
        with target.open("wb") as stream:
            stream.truncate(part["sparse"])
    elif "absent" not in part:
        target.write_bytes(evaluate(part, base))


def materialise(group: dict[str, Any], test: dict[str, Any], folder: Path) -> list[str]:
    """Write the files of a vector into a folder; gives the arguments of the program."""
    base = HERE / group["base"]
    shutil.copytree(base, folder, dirs_exist_ok=True)
    for name, part in test["files"].items():
        _put(folder / name, part, base, folder)
    words: list[str] = [*group["command"], *test["args"]]
    return words


def answer(code: int, printed: str, complained: str, test: dict[str, Any]) -> tuple[int, str, str]:
    """Exit code, error code and path that a program gave; after exit 2 only the path can be looked for."""
    if code == COULD_NOT_RUN:
        silent = not printed.strip() and test["errorPath"] in complained
        return code, *((test["errorCode"], test["errorPath"]) if silent else ("?", complained.strip()[-160:]))
    try:
        found = json.loads(printed)
        path = next((c["path"] for c in found["checks"] if c["code"] == found["code"] != "OK"), "")
    except (ValueError, KeyError, TypeError) as error:
        return code, "no JSON", str(error)
    return code, str(found["code"]), str(path)


def main(argv: list[str]) -> int:
    """Run the vectors; 1 when one of them fails."""
    parser = argparse.ArgumentParser(description="run a certificate checker against the vectors")
    parser.add_argument("--exit-codes", action="store_true", help="compare exit codes only")
    parser.add_argument("--only", default="", help="tcIds, separated by commas")
    parser.add_argument("program", nargs=argparse.REMAINDER, help="the program and its first words")
    options = parser.parse_args(argv)
    program = [str(Path(w).absolute()) if os.sep in w and Path(w).exists() else w for w in options.program]
    only = {int(number) for number in options.only.split(",") if number}
    groups = json.loads((HERE / "vectors.json").read_text())["testGroups"]
    chosen = [(g, t) for g in groups for t in g["tests"] if not only or t["tcId"] in only]
    failed = 0
    for group, test in chosen:
        with tempfile.TemporaryDirectory() as name:
            words = materialise(group, test, Path(name))
            done = subprocess.run(  # noqa: S603 - the program that the caller named
                [*program, *words], cwd=name, capture_output=True, text=True, errors="replace", check=False
            )
        expected = (test["exitCode"], test["errorCode"], test["errorPath"])
        found = answer(done.returncode, done.stdout, done.stderr, test)
        if found[:1] != expected[:1] or (found != expected and not options.exit_codes):
            failed += 1
            sys.stdout.write(f"FAIL {test['tcId']} {','.join(test['flags'])}: {test['comment']}\n")
            sys.stdout.write(
                f"     expected {' '.join(map(str, expected))}\n     got      {' '.join(map(str, found))}\n"
            )
    sys.stdout.write(f"{len(chosen) - failed} of {len(chosen)} vectors passed\n")
    return 1 if failed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
