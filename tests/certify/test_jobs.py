"""Jobs: the same results in the same order anywhere, few at a time, none lost with a worker, none made twice."""

from __future__ import annotations

import hashlib
import itertools
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from prune_verify import __version__
from prune_verify.certify import elaborate, jobs
from prune_verify.certify.chunks import chunks, job_of, read_report, settle_chunk
from prune_verify.certify.elaborate import Effort, prove_bounded
from prune_verify.certify.errors import CertifyError, CertifyInputError, WorkersUnavailableError
from prune_verify.certify.jobs import Job, Result, content_key, run_jobs
from prune_verify.certify.settle import Limits
from prune_verify.checker.bounded_claims import decide_bounded, goals_of
from prune_verify.checker.claim import Claim, LabelledRows, Problem
from prune_verify.checker.region import Domain
from prune_verify.checker.rules import REAL
from tests.checker.random_networks import mlp

pytestmark = pytest.mark.prover

ROOT = Path(__file__).resolve().parents[2]
AHEAD = jobs._AHEAD


# --- functions of jobs: workers import them from here ---


def square(number):
    return Result(str(number * number).encode(), final=True)


def squares(count):
    return [square(number) for number in range(count)]


def slow_first(number):
    time.sleep(1.0 if number == 0 else 0.0)
    return square(number)


def counted(payload):
    """Leaves a line per call."""
    number, folder = payload
    with Path(folder, "calls").open("a") as file:
        file.write(f"{number}\n")
    return square(number)


def open_end(payload):
    return Result(counted(payload).data, final=False)


def dies_once(payload):
    number, folder = payload
    if number == 3 and not Path(folder, "died").exists():
        Path(folder, "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return square(number)


def dies_always(payload):
    number, _ = payload
    if number in (3, 11):
        counted(payload)
        os.kill(os.getpid(), signal.SIGKILL)
    return square(number)


def exits(number):
    if number == 3:
        os._exit(0)
    return square(number)


def refuses(number):
    if number == 3:
        text = "three"
        raise CertifyInputError(text)
    return square(number)


def process(_number):
    return Result(str(os.getpid()).encode(), final=True)


def threads(_number):
    import torch

    return Result(f"{os.environ['OMP_NUM_THREADS']} {torch.get_num_threads()}".encode(), final=True)


def short(number):
    time.sleep(0.15)
    return square(number)


def endless(_number):
    time.sleep(600)
    return square(0)


def the_big_one(payload):
    return Result(hashlib.sha256(payload.tobytes()).digest(), final=True)


def numbers(count, extra=None):
    """Jobs of the first numbers, each with ``extra`` in its payload if there is any."""
    for number in range(count):
        key = content_key(b"square", str(number).encode())
        yield Job(key, number if extra is None else (number, str(extra)))


def calls(folder):
    file = Path(folder, "calls")
    return sorted(map(int, file.read_text().split())) if file.exists() else []


# --- keys ---


def test_keys_tell_where_parts_end_and_the_order():
    keys = [
        content_key(*parts) for parts in [(b"a", b"bc"), (b"ab", b"c"), (b"abc",), (b"bc", b"a"), (b"a", b"bc", b"")]
    ]
    assert len(set(keys)) == 5
    assert all(len(key) == 64 and set(key) <= set("0123456789abcdef") for key in keys)
    assert content_key(b"a", b"bc") == keys[0]


def test_keys_depend_on_the_version_and_the_format(monkeypatch):
    key = content_key(b"a")
    monkeypatch.setattr(jobs, "__version__", __version__ + ".1")
    assert content_key(b"a") != key
    monkeypatch.undo()
    monkeypatch.setattr(jobs, "_FORMAT", b"another")
    assert content_key(b"a") != key


# --- order, room, errors ---


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_results_come_in_order(workers, count):
    assert list(run_jobs(numbers(count), square, workers=workers)) == squares(count)


def test_a_slow_job_does_not_change_the_order():
    assert list(run_jobs(numbers(30), slow_first, workers=2)) == squares(30)


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (2, 2 * AHEAD)])
@pytest.mark.parametrize("function", [square, slow_first])
def test_jobs_are_taken_a_few_ahead(workers, ahead, function):
    taken = 0

    def counting():
        nonlocal taken
        for job in numbers(60):
            taken += 1
            yield job

    results = run_jobs(counting(), function, workers=workers)
    assert taken == 0
    furthest = 0
    for given, _ in enumerate(results):  # a result is counted as given back once the next is asked for
        furthest = max(furthest, taken - given)
    assert taken == 60
    assert workers <= furthest <= ahead + 1


def test_an_endless_run_can_be_stopped():
    results = run_jobs((Job(content_key(str(n).encode()), n) for n in itertools.count()), square, workers=2)
    assert list(itertools.islice(results, 25)) == squares(25)
    results.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_the_function_reaches_the_caller(workers):
    with pytest.raises(CertifyInputError, match="three"):
        list(run_jobs(numbers(12), refuses, workers=workers))
    assert list(run_jobs(numbers(5), square, workers=workers)) == squares(5)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_the_jobs_reaches_the_caller(workers):
    def broken():
        yield from numbers(15)
        text = "no more"
        raise KeyError(text)

    with pytest.raises(KeyError, match="no more"):
        list(run_jobs(broken(), square, workers=workers))


class Stubborn:
    """Refuses to be pickled, and counts how often it was asked."""

    asked = 0

    def __reduce__(self):
        Stubborn.asked += 1
        text = "stubborn"
        raise TypeError(text)


def test_a_payload_that_cannot_be_pickled_is_an_error_and_no_deadlock(monkeypatch):
    monkeypatch.setattr(Stubborn, "asked", 0)
    every = (Job(content_key(str(n).encode()), Stubborn() if n > 9 else n) for n in range(30))
    with pytest.raises(TypeError, match="stubborn"):
        list(run_jobs(every, square, workers=2))
    assert Stubborn.asked == 1


@pytest.mark.parametrize("workers", [0, -1])
def test_no_workers_at_all(workers):
    with pytest.raises(CertifyInputError, match="workers: expected 1 or more"):
        list(run_jobs(numbers(1), square, workers=workers))


@pytest.mark.parametrize("workers", [1, 2])
def test_progress_counts_results(workers):
    seen = []
    list(run_jobs(numbers(9), square, workers=workers, progress=lambda *at: seen.append(at), total=9))
    assert seen == [(done, 9) for done in range(1, 10)]
    seen.clear()
    list(run_jobs(numbers(9), square, workers=workers, progress=lambda *at: seen.append(at)))
    assert [done for done, _ in seen] == list(range(1, 10))
    assert all(done <= known <= 9 for done, known in seen)
    assert seen[-1] == (9, 9)


def test_workers_are_other_processes_with_one_thread_each(monkeypatch):
    monkeypatch.setattr("joblib._parallel_backends.cpu_count", lambda *_, **__: 8)  # joblib would share out 8 threads
    own = str(os.getpid()).encode()
    assert {r.data for r in run_jobs(numbers(4), process)} == {own}
    assert own not in {r.data for r in run_jobs(numbers(8), process, workers=2)}
    assert own not in {r.data for r in run_jobs(numbers(1), process, workers=2)}
    assert {r.data for r in run_jobs(numbers(4), threads, workers=2)} == {b"1 1"}


def test_large_arrays_arrive_whole():
    array = np.arange(2**19, dtype=np.float64)  # joblib would put 4 MiB into a file of its own
    found = list(run_jobs((Job(content_key(str(n).encode()), array) for n in range(3)), the_big_one, workers=2))
    assert {r.data for r in found} == {hashlib.sha256(array.tobytes()).digest()}


# --- workers that die ---


def test_a_worker_that_dies_once_costs_nothing(tmp_path):
    assert list(run_jobs(numbers(20, tmp_path), dies_once, workers=2)) == squares(20)
    assert (tmp_path / "died").exists()


def test_jobs_that_always_kill_their_worker_are_lost_and_no_others(tmp_path):
    cache = tmp_path / "cache"
    found = list(run_jobs(numbers(20, tmp_path), dies_always, workers=2, cache=cache))
    lost = Result(b"", final=False)
    assert found == [lost if number in (3, 11) else result for number, result in enumerate(squares(20))]
    assert 2 <= calls(tmp_path).count(3) <= 3
    assert 2 <= calls(tmp_path).count(11) <= 3
    assert len([path for path in cache.rglob("*") if path.is_file()]) == 18


def test_a_worker_that_leaves_without_a_word_is_one_that_died():
    assert [r.final for r in run_jobs(numbers(6), exits, workers=2)] == [True, True, True, False, True, True]


# --- results that are kept ---


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_kept_is_not_made_again(tmp_path, workers):
    cache = tmp_path / "new" / "cache"
    for _ in range(2):
        assert list(run_jobs(numbers(12, tmp_path), counted, workers=workers, cache=cache)) == squares(12)
        assert calls(tmp_path) == list(range(12))
    other = [Job(content_key(b"changed"), (5, str(tmp_path)))]
    assert list(run_jobs(other, counted, workers=workers, cache=cache)) == [square(5)]
    assert calls(tmp_path).count(5) == 2


def test_the_file_of_a_result(tmp_path):
    (job,) = numbers(1)
    list(run_jobs([job], square, cache=tmp_path))
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert file == tmp_path / job.key[:2] / job.key
    assert file.read_bytes() == hashlib.sha256(b"0").hexdigest().encode() + b"\n0"


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:-1],
        lambda content: content + b"\n",
        lambda content: content[:-1] + b"7",
        lambda content: b"0" + content[1:] if content[:1] != b"0" else b"1" + content[1:],
        lambda content: content.replace(b"\n", b""),
        lambda content: b"",
        lambda content: b"\n",
    ],
    ids=["shorter", "longer", "other data", "other digest", "no header", "empty", "empty header"],
)
def test_a_changed_file_is_ignored_and_made_anew(tmp_path, change):
    (job,) = itertools.islice(numbers(10, tmp_path), 9, None)
    cache = tmp_path / "cache"
    file = cache / job.key[:2] / job.key
    list(run_jobs([job], counted, cache=cache))
    content = file.read_bytes()
    file.write_bytes(change(content))
    assert list(run_jobs([job], counted, cache=cache)) == [square(9)]
    assert calls(tmp_path) == [9, 9]
    assert file.read_bytes() == content


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_not_final_is_not_kept(tmp_path, workers):
    cache = tmp_path / "cache"
    for _ in range(2):
        list(run_jobs(numbers(4, tmp_path), open_end, workers=workers, cache=cache))
    assert calls(tmp_path) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert not [path for path in cache.rglob("*") if path.is_file()]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_was_stopped_resumes(tmp_path, workers):
    cache = tmp_path / "cache"
    results = run_jobs(numbers(30, tmp_path), counted, workers=workers, cache=cache)
    assert [next(results) for _ in range(7)] == squares(7)
    results.close()
    assert not list(cache.rglob("*.part"))
    kept = {path.name for path in cache.rglob("*") if path.is_file()}
    done = [number for number, job in enumerate(numbers(30)) if job.key in kept]
    assert set(range(7)) <= set(done)
    assert len(done) < 30
    before = calls(tmp_path)
    assert list(run_jobs(numbers(30, tmp_path), counted, workers=workers, cache=cache)) == squares(30)
    again = calls(tmp_path)
    assert all(again.count(number) == before.count(number) for number in done)
    assert all(again.count(number) == before.count(number) + 1 for number in range(30) if number not in done)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cache_that_cannot_be_written_is_an_error(tmp_path, workers):
    (tmp_path / "file").write_text("")
    with pytest.raises(CertifyInputError, match="cache cannot be written"):
        list(run_jobs(numbers(3), square, workers=workers, cache=tmp_path / "file"))


# --- interruption ---


def interrupted(cache):
    """A run in a process of its own: 6 quick jobs, then ones without end."""
    many = itertools.chain(numbers(6), (Job(content_key(str(n).encode()), n) for n in range(6, 10)))
    for _ in run_jobs(many, quick_then_endless, workers=2, cache=Path(cache)):
        sys.stdout.write("result\n")
        sys.stdout.flush()


def quick_then_endless(number):
    return square(number) if number < 6 else endless(number)


def alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_ctrl_c_leaves_no_worker_and_no_half_written_file(tmp_path):
    # a shell gives its background jobs, and so their children, an interrupt that is ignored
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code = f"{heard}from tests.certify.test_jobs import interrupted; interrupted({str(tmp_path)!r})"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as child:
        try:
            assert [child.stdout.readline() for _ in range(6)] == [b"result\n"] * 6
            time.sleep(0.3)  # both workers are in jobs without end
            os.killpg(child.pid, signal.SIGINT)
            assert child.wait(20) != 0
            deadline = time.monotonic() + 10
            while alive(child.pid) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not alive(child.pid)
        finally:
            if alive(child.pid):
                os.killpg(child.pid, signal.SIGKILL)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 6
    assert not list(tmp_path.rglob("*.part"))


def test_closing_ends_workers_that_are_in_the_middle_of_a_job():
    first = [Job(content_key(b"pid"), 0)]
    rest = (Job(content_key(str(n).encode()), n) for n in range(1, 5))
    results = run_jobs(itertools.chain(first, rest), pid_then_endless, workers=2)
    pid = int(next(results).data)
    start = time.monotonic()
    results.close()
    assert time.monotonic() - start < 10
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def pid_then_endless(number):
    return process(number) if number == 0 else endless(number)


# --- a cluster ---


def test_without_the_package_the_line_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(WorkersUnavailableError, match=r"pip install 'prune-verify\[prover,cluster\]'") as caught:
        list(run_jobs(numbers(1), square, cluster="tcp://127.0.0.1:1"))
    assert isinstance(caught.value, CertifyError)
    assert caught.value.exit_code == 2


def test_without_joblib_the_line_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(WorkersUnavailableError, match=r"pip install 'prune-verify\[prover\]'"):
        list(run_jobs(numbers(1), square, workers=2))


@pytest.mark.slow
@pytest.mark.loopback
def test_a_scheduler_that_does_not_answer_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(WorkersUnavailableError, match=f"{address}: no Dask scheduler answers within 10 s"):
            list(run_jobs(numbers(1), square, cluster=address))
        assert time.monotonic() - start < 20


def test_an_address_that_is_none_is_named():
    with pytest.raises(WorkersUnavailableError, match="nonsense://here"):
        list(run_jobs(numbers(1), square, cluster="nonsense://here"))


class Dask:
    """A scheduler and workers, each a process of its own with one thread, on 127.0.0.1."""

    def __init__(self, folder, workers, *, nanny=False):
        self.env = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.processes = []
        file = folder / "scheduler.json"
        self.start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", file)
        more = ["--nanny"] if nanny else ["--no-nanny"]
        for number in range(workers):
            name = ["--name", str(number), "--local-directory", folder / f"worker{number}"]
            self.start("worker", "--scheduler-file", file, "--nthreads", "1", *more, *name)
        import json

        deadline = time.monotonic() + 30
        while not file.exists() or not file.stat().st_size:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        self.address = json.loads(file.read_text())["address"]
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=30)

    def start(self, kind, *arguments):
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *map(str, arguments), "--no-dashboard"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.processes.append(subprocess.Popen(command, env=self.env, cwd="/", **quiet))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.mark.slow
@pytest.mark.loopback
def test_a_cluster_finds_the_same_and_loses_nothing_with_a_worker(tmp_path):
    with Dask(tmp_path, 2) as dask:
        alone = list(run_jobs(numbers(20), short))
        assert list(run_jobs(numbers(20), short, cluster=dask.address)) == alone == squares(20)
        pids = {int(r.data) for r in run_jobs(numbers(20), process, cluster=dask.address)}
        assert pids == {worker.pid for worker in dask.processes[1:]}
        # what is kept is not sent again
        cache = tmp_path / "cache"
        for _ in range(2):
            found = list(run_jobs(numbers(6, tmp_path), counted, cluster=dask.address, cache=cache))
            assert found == squares(6)
            assert calls(tmp_path) == list(range(6))
        with pytest.raises(CertifyInputError, match="three"):
            list(run_jobs(numbers(12), refuses, cluster=dask.address))
        # one of the two workers is killed in the middle
        found = []
        for place, result in enumerate(run_jobs(numbers(20), short, cluster=dask.address)):
            found.append(result)
            if place == 5:
                dask.processes[1].kill()
        assert found == alone
        # and with only one left, jobs are still not done in this process
        assert {int(r.data) for r in run_jobs(numbers(4), process, cluster=dask.address)} == {dask.processes[2].pid}
        dask.processes[2].kill()
        dask.processes[2].wait()
        time.sleep(0.5)
        with pytest.raises(WorkersUnavailableError, match="the cluster has no workers"):
            list(run_jobs(numbers(4), square, cluster=dask.address))


@pytest.mark.slow
@pytest.mark.loopback
def test_a_job_that_kills_every_worker_of_a_cluster_is_lost_and_no_others(tmp_path):
    with Dask(tmp_path, 2, nanny=True) as dask:
        found = list(run_jobs(numbers(20), exits, cluster=dask.address))
    lost = Result(b"", final=False)
    assert found == [lost if number == 3 else result for number, result in enumerate(squares(20))]


# --- real ones ---

_RNG = np.random.default_rng(4)
_ROWS = LabelledRows(_RNG.uniform(-1, 1, (7, 4)).astype(np.float32), np.zeros(7, dtype=np.int64))
_DOMAIN = Domain((Fraction(-2),), (Fraction(2),))
_NETWORK = mlp(3, 4, 9, 9, 3)
_PROBLEM = Problem(_NETWORK, _NETWORK, None, _DOMAIN, forget=_ROWS, retain=_ROWS)
_CLAIM = Claim("forget", REAL, "relaxation", radius=Fraction("0.35"), margin=Fraction(-7))
_LIMITS = Limits(splits=64, seconds=1000.0, solver_seconds=0)  # no limit of time has a part in the result


@pytest.mark.parametrize("arrange", [{"workers": 2}, {"cache": True}, {"workers": 2, "cache": True}], ids=str)
def test_evidence_is_the_same_however_it_was_made(tmp_path, monkeypatch, arrange):
    monkeypatch.setattr(elaborate, "chunks", partial(chunks, size=2))
    plain = prove_bounded(_PROBLEM, _CLAIM, effort=Effort(_LIMITS))
    assert plain.outcome.total == 7
    assert 0 < plain.outcome.proved < 7
    assert plain.stages["splits"] > 0  # slopes, cuts and trees are put together too
    assert decide_bounded(_PROBLEM, _CLAIM, plain.proof, "p") == plain.outcome
    options = {**arrange, "cache": tmp_path if "cache" in arrange else None}
    for _ in range(2):
        found = prove_bounded(_PROBLEM, _CLAIM, effort=Effort(_LIMITS, **options))
        assert found.proof == plain.proof
        assert found.outcome == plain.outcome
        assert (found.why, found.best, found.stages) == (plain.why, plain.best, plain.stages)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == (4 if "cache" in arrange else 0)


def test_a_lost_piece_leaves_its_records_open(monkeypatch):
    monkeypatch.setattr(elaborate, "chunks", partial(chunks, size=2))
    plain = prove_bounded(_PROBLEM, _CLAIM, effort=Effort(_LIMITS))
    real = elaborate.run_jobs

    def loses_the_second(*arguments, **options):
        for place, result in enumerate(real(*arguments, **options)):
            yield Result(b"", final=False) if place == 1 else result

    monkeypatch.setattr(elaborate, "run_jobs", loses_the_second)
    found = prove_bounded(_PROBLEM, _CLAIM, effort=Effort(_LIMITS))
    assert set(found.outcome.unknowns) == set(plain.outcome.unknowns) | {2, 3}
    assert decide_bounded(_PROBLEM, _CLAIM, found.proof, "p") == found.outcome


def test_pieces_survive_pickling():
    (piece,) = chunks(goals_of(_PROBLEM, _CLAIM), "forget", _LIMITS, elaborate.BoundEngine)
    copy = pickle.loads(pickle.dumps(piece))  # noqa: S301 - written on the line itself
    assert copy.key() == piece.key() == job_of(piece).key
    report = settle_chunk(copy)
    assert report == settle_chunk(piece)
    assert read_report(report.data, copy.goals()).proved.shape == (7,)
