"""The scripts of ``prune-verify completion`` are those of today's verbs, and complete in real shells."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

from prune_verify.cli import run_words
from prune_verify.completion import SHELLS, script

ROOT = Path(__file__).resolve().parents[1]
BASH = """
source /dev/stdin
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
complete=($(complete -p prune-verify))
for i in "${!complete[@]}"; do [ "${complete[i]}" = -F ] && function=${complete[i + 1]}; done
"$function" prune-verify "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
# The words on the command line, and what some and none of the answers are.
CASES = [
    ("a verb", ["ver"], {"verify", "verdict"}, {"repair"}),
    ("an action", ["trust", ""], {"init", "add", "revoke", "show"}, {"verify"}),
    ("an option", ["verify", "--insecure"], {"--insecure-skip-signature", "--insecure-skip-time"}, {"--json"}),
    ("an option of an action", ["trust", "add", "--not"], {"--not-before", "--not-after"}, {"--name"}),
    ("a value", ["trust", "add", "--role", ""], {"prover", "auditor"}, {"init"}),
    ("a choice", ["completion", ""], {"bash", "zsh", "fish"}, set()),
    ("a file", ["verify", "--base", "net"], {"network.onnx"}, {"verify"}),
    ("a folder", ["certify", "--cache", "fold"], {"folder"}, set()),
]  # fmt: skip


def shell(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(command: list[str], text: str, folder: Path) -> str:
    done = subprocess.run(command, input=text, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the shells stand: a file and a folder to complete, and no configuration."""
    (tmp_path / "network.onnx").touch()
    (tmp_path / "folder").mkdir()
    return tmp_path


def test_the_scripts_are_what_shtab_makes_of_todays_verbs() -> None:
    made = runpy.run_path(str(ROOT / ".ci" / "completions.py"))["scripts"]()
    for name in SHELLS:
        assert script(name) == made[name], f"{name}: the verbs have changed; `make completions` writes the scripts anew"


@pytest.mark.parametrize("name", SHELLS)
def test_the_verb_prints_the_script(name: str) -> None:
    code, text = run_words(["completion", name])
    assert (code, text + "\n") == (0, script(name).rstrip("\n") + "\n")
    code, text = run_words(["completion", name, "--json"])
    assert (code, json.loads(text)) == (0, {"shell": name, "script": script(name)})


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run_words(["completion", "tcsh"])
    assert "argument shell: invalid choice: 'tcsh'" in capsys.readouterr().err


@pytest.mark.parametrize(("what", "words", "some", "none"), CASES, ids=[c[0] for c in CASES])
def test_bash_completes(folder: Path, what: str, words: list[str], some: set[str], none: set[str]) -> None:
    command = [shell("bash"), "--norc", "-c", BASH, "bash", "prune-verify", *words]
    found = set(run(command, script("bash"), folder).split("\n"))
    assert some <= found
    assert not none & found


@pytest.mark.parametrize(("what", "words", "some", "none"), CASES, ids=[c[0] for c in CASES])
def test_fish_completes(folder: Path, what: str, words: list[str], some: set[str], none: set[str]) -> None:
    command = [
        shell("fish"),
        "--no-config",
        "-c",
        'source; complete -C "$argv"',
        "--",
        " ".join(["prune-verify", *words]),
    ]
    found = {line.split("\t")[0].rstrip("/") for line in run(command, script("fish"), folder).splitlines()}
    assert some <= found
    assert not none & found


def test_zsh_takes_the_script(folder: Path) -> None:
    """That it parses, and names itself as the completion of the command, as ``compinit`` reads it from ``fpath``."""
    (folder / "_prune-verify").write_text(script("zsh"), encoding="utf-8")
    code = "fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -D; echo $_comps[prune-verify]; autoload +X _prune-verify"
    assert run([shell("zsh"), "-f", "-c", code], "", folder) == "_prune-verify\n"
