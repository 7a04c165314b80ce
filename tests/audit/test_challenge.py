"""Challenges: 256 fresh bits in a file that is never overwritten, read back by owner and auditor alike."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prune_verify.audit.challenge import new_challenge
from prune_verify.checker.__main__ import challenge_of
from prune_verify.checker.encoding import parse_time
from prune_verify.checker.errors import MalformedInputError
from prune_verify.cli import run_words


def test_a_challenge_is_new_each_time_and_read_back(tmp_path: Path) -> None:
    first, second = (new_challenge(tmp_path / name, "to the owner of digits") for name in ("a.json", "b.json"))
    assert first != second
    assert len(bytes.fromhex(first)) == 32
    assert challenge_of(str(tmp_path / "a.json")) == first
    found = json.loads((tmp_path / "a.json").read_bytes())
    assert found["note"] == "to the owner of digits"
    parse_time(found["createdAt"], "createdAt")


def test_a_challenge_is_never_overwritten(tmp_path: Path) -> None:
    new_challenge(tmp_path / "a.json")
    before = (tmp_path / "a.json").read_bytes()
    with pytest.raises(FileExistsError):
        new_challenge(tmp_path / "a.json")
    assert (tmp_path / "a.json").read_bytes() == before


@pytest.mark.parametrize("note", ["a" * 257, "two\nlines", "\x1b[2J"])
def test_notes_are_readable(tmp_path: Path, note: str) -> None:
    with pytest.raises(MalformedInputError) as caught:
        new_challenge(tmp_path / "a.json", note)
    assert caught.value.path == "--note"
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_the_nonce(tmp_path: Path) -> None:
    code, text = run_words(["challenge", "new", "--out", str(tmp_path / "a.json"), "--note", "for May", "--json"])
    assert code == 0
    assert json.loads(text)["nonce"] == challenge_of(str(tmp_path / "a.json"))
