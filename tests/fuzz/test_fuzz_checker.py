"""The fuzz targets under a short run of the builtin engine; that the engine finds a planted crash; that seeds reach deep."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fuzz.fuzz_checker import DOCUMENTS, TARGETS, Target, attempt, builtin, main, sealed
from tests.fuzz.mutations import mutate_bytes

SECONDS = 60  # never reached: the number of inputs ends a run, so that every machine tries the same
RUNS = {"network": 12_000, "documents": 8_000, "proof": 25_000}


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_no_input_crashes(name: str) -> None:
    found = builtin(TARGETS[name], seed=7, seconds=SECONDS, runs=RUNS[name])
    assert found.crash is None, found.text
    assert found.runs == RUNS[name]
    assert found.accepted > RUNS[name] // 100  # behind the first checks as well


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_most_seeds_are_accepted(name: str) -> None:
    seeds = TARGETS[name].seeds()
    assert sum(attempt(TARGETS[name], data) for data in seeds) > 0.6 * len(seeds)


def test_every_parser_of_documents_has_a_seed_that_it_takes() -> None:
    taken = {data[0] for data in TARGETS["documents"].seeds() if attempt(TARGETS["documents"], data)}
    assert taken == set(range(len(DOCUMENTS)))


def _key_error(data: bytes) -> None:
    if b"e" in data[40:60]:
        raise KeyError


def _endless(data: bytes) -> None:
    while data:
        pass


def _memory(data: bytes) -> None:
    bytearray(2**20 + len(data))


PLANTED: list[tuple[str, Callable[[bytes], None], str, dict[str, int]]] = [
    ("an exception that is no CheckError", _key_error, "KeyError", {}),
    ("an input that takes too long", _endless, "TimeoutError", {"timeout": 1}),
    ("too much memory", _memory, "more than 1 MB", {"rss_mb": 1}),
]


@pytest.mark.parametrize(("sentence", "run", "text", "limits"), PLANTED, ids=[row[0] for row in PLANTED])
def test_a_planted_crash_is_found(
    sentence: str, run: Callable[[bytes], None], text: str, limits: dict[str, int]
) -> None:
    target = Target(run, lambda: [bytes(100)], mutate_bytes)
    found = builtin(target, seed=1, seconds=SECONDS, **limits)
    assert found.crash is not None
    assert text in found.text, sentence


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_the_same_seed_makes_the_same_changes(name: str) -> None:
    target = TARGETS[name]
    pool = target.seeds()
    first, second = (
        [target.mutate(random.Random(place), pool[place % len(pool)], pool) for place in range(200)] for _ in range(2)
    )
    assert first == second
    assert len(set(first)) > 100


def test_a_proof_is_sealed_by_the_target() -> None:
    (data, *_) = TARGETS["proof"].seeds()
    assert sealed(data) == data
    assert sealed(data[:30] + b"0" + data[31:]) == data
    assert sealed(b"no line") == b"no line"


def test_the_command_writes_a_crash_and_shows_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    planted = replace(TARGETS["proof"], run=_key_error, seeds=lambda: [bytes(100)])
    monkeypatch.setitem(TARGETS, "proof", planted)
    words = ["proof", "--engine", "builtin", "-max_total_time=60", "-seed=3", f"-artifact_prefix={tmp_path}/"]
    assert main(words) == 1
    (crash,) = tmp_path.iterdir()
    assert f"written to {crash}" in capsys.readouterr().out
    with pytest.raises(KeyError):
        main(["proof", "--reproduce", str(crash)])


def test_the_command_runs_as_a_file(repository: Path, tmp_path: Path) -> None:
    script = repository / "tests" / "fuzz" / "fuzz_checker.py"
    done = subprocess.run(
        [sys.executable, str(script), "proof", "--engine", "builtin", "-max_total_time=1"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("proof: ")
    assert list(tmp_path.iterdir()) == []
