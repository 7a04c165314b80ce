"""Records: what each reader gives, what it refuses and where, and that any bytes give a result or a CheckError."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import struct
import time
import tracemalloc
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prune_verify.checker import record_csv
from prune_verify.checker.encoding import canonical_json
from prune_verify.checker.errors import CheckError, LimitError, MalformedInputError, UnsupportedVersionError
from prune_verify.checker.merkle import set_root
from prune_verify.checker.record_encoding import CategoryColumn, NumberColumn, nearest_float32
from prune_verify.checker.record_files import Limits, read_npz
from prune_verify.checker.records import (
    Encoding,
    Records,
    canonical_record,
    canonical_records,
    check_against,
    duplicates_between,
    emit_encoding,
    fit_encoding,
    load_records,
    parse_encoding,
)
from prune_verify.checker.region import Domain

LIMITS = Limits(bytes=2**24, records=1000)
UNIT = Domain((Fraction(0),), (Fraction(1),))
X = np.arange(12, dtype=np.float32).reshape(3, 4) / np.float32(16)
Y = np.array([0, 2, 1])


def _npy(array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _zip(members: list[tuple[str, bytes]], *, method=zipfile.ZIP_DEFLATED, comment=b"") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), data, method)
        archive.comment = comment
    return stream.getvalue()


def _npz(x=X, y=Y, **options) -> bytes:
    return _zip([("x.npy", _npy(x)), ("y.npy", _npy(y))], **options)


def _member(data: bytes) -> bytes:
    """An honest archive around any x.npy."""
    return _zip([("x.npy", data), ("y.npy", _npy(Y))])


def _raw_npy(header: bytes, payload: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + payload


def _records(x=X, y=Y) -> Records:
    return Records(np.asarray(x, np.float32), np.asarray(y, np.int64), None, "r")


def _refuses(error, path: str, rule: str, call) -> None:
    with pytest.raises(CheckError) as caught:
        call()
    assert type(caught.value) is error
    assert (caught.value.path, caught.value.rule) == (path, rule)


# --- npz ---


@pytest.mark.parametrize("dtype", ["u1", "i1", "<u2", "<i4", "<u8", "<i8"])
def test_npz_gives_the_same_bits_and_any_integer_labels(dtype, tmp_path) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=Y.astype(dtype))
    np.savez_compressed(tmp_path / "b.npz", x=np.asfortranarray(X), y=Y.astype(dtype))
    for name in ("a.npz", "b.npz"):
        found = load_records(str(tmp_path / name), what="forget set")
        assert found.x.tobytes() == X.tobytes()
        assert found.x.flags.writeable
        assert found.y.tolist() == [0, 2, 1]
        assert (found.encoding_sha256, found.source, len(found)) == (None, str(tmp_path / name), 3)


@given(st.integers(1, 5), st.lists(st.integers(1, 3), min_size=1, max_size=3), st.binary(min_size=4, max_size=4))
def test_npz_round_trip_of_any_bits(count, row, bits) -> None:
    x = np.frombuffer(bits * count * int(np.prod(row)), "<f4").reshape(count, *row)
    found, labels = read_npz(_npz(x, np.arange(count)), "f", LIMITS)
    assert (found.shape, found.tobytes()) == (x.shape, x.tobytes())
    assert labels.tolist() == list(range(count))


def _lying_size(declared: int) -> bytes:
    data = bytearray(_npz())
    place = data.index(b"PK\x01\x02")
    data[place + 24 : place + 28] = struct.pack("<I", declared)
    return bytes(data)


HEADER = b"{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }\n"
NPZ = [
    ("no archive at all", b"", MalformedInputError, "f", "npz archive"),
    ("not a zip file", b"\x93NUMPY" * 9, MalformedInputError, "f", "npz archive"),
    ("a truncated archive", _npz()[:-30], MalformedInputError, "f", "npz archive"),
    ("an archive without its beginning", _npz()[40:], MalformedInputError, "f", "npz archive"),
    ("a comment behind the directory", _npz(comment=b"more"), MalformedInputError, "f", "npz archive"),
    ("a flipped byte of a stored value", _npz(method=0).replace(X.tobytes(), bytes(48)), MalformedInputError, "f", "npz archive"),
    ("no labels", _zip([("x.npy", _npy(X))]), MalformedInputError, "f", "members"),
    ("a third member", _zip([("x.npy", _npy(X)), ("y.npy", _npy(Y)), ("z.npy", b"")]), MalformedInputError, "f", "members"),
    ("a path for a name", _zip([("../x.npy", _npy(X)), ("y.npy", _npy(Y))]), MalformedInputError, "f", "members"),
    ("10,000 members", _zip([(f"{i}", b"") for i in range(10_000)]), MalformedInputError, "f", "npz archive"),
    ("bzip2", _npz(method=zipfile.ZIP_BZIP2), MalformedInputError, "f: x.npy", "compression"),
    ("a zip bomb", _npz(np.zeros((900, 900), np.float32), np.zeros(900, int)), LimitError, "f", "compression ratio"),
    ("a declared size above the limit", _lying_size(2**25), LimitError, "f", "unpacked size"),
    ("a declared size above the real one", _lying_size(1000), MalformedInputError, "f: x.npy", "declared size"),
    ("a declared size below the real one", _lying_size(100), MalformedInputError, "f", "npz archive"),
    ("float64", _npz(X.astype(np.float64)), MalformedInputError, "f: x.npy", "data type"),
    ("uint8", _npz(X.astype(np.uint8)), MalformedInputError, "f: x.npy", "data type"),
    ("big-endian", _npz(X.astype(">f4")), MalformedInputError, "f: x.npy", "data type"),
    ("pickled values", _npz(X.astype(object)), MalformedInputError, "f: x.npy", "data type"),
    ("pickled labels", _npz(y=Y.astype(object)), MalformedInputError, "f: y.npy", "data type"),
    ("labels with fractions", _npz(y=Y.astype(np.float32)), MalformedInputError, "f: y.npy", "data type"),
    ("booleans for labels", _npz(y=Y == 1), MalformedInputError, "f: y.npy", "data type"),
    ("fewer labels than rows", _npz(y=Y[:2]), MalformedInputError, "f: y.npy", "one label per row"),
    ("labels in a column", _npz(y=Y[:, None]), MalformedInputError, "f: y.npy", "one label per row"),
    ("values without rows", _npz(X[0], Y[:1]), MalformedInputError, "f: x.npy", "shape"),
    ("no record", _npz(X[:0], Y[:0]), MalformedInputError, "f: x.npy", "shape"),
    ("rows without values", _npz(X[:, :0]), MalformedInputError, "f: x.npy", "shape"),
    ("nine axes", _npz(X[:1, :1].reshape((1,) * 9), Y[:1]), MalformedInputError, "f: x.npy", "shape"),
    ("a negative label", _npz(y=np.array([0, -1, 1])), MalformedInputError, "f: row 1", "label"),
    ("a label of 2^63", _npz(y=np.array([0, 1, 2**63], np.uint64)), MalformedInputError, "f: row 2", "label"),
    ("more records than the limit", _npz(np.ones((1001, 1), np.float32), np.arange(1001)), LimitError, "f", "number of records"),
    ("npy magic of another version", _member(b"\x93NUMPY\x03\x00" + bytes(9)), MalformedInputError, "f: x.npy", "npy file"),
    ("an empty member", _member(b""), MalformedInputError, "f: x.npy", "npy file"),
    ("a header that is code", _member(_raw_npy(b"__import__('os').abort()\n")), MalformedInputError, "f: x.npy", "npy file"),
    ("a header of brackets", _member(_raw_npy(b"(" * 60_000)), MalformedInputError, "f: x.npy", "npy file"),
    ("a header longer than the file", _member(_npy(X)[:40]), MalformedInputError, "f: x.npy", "npy file"),
    ("a shape of 2^62 values", _member(_raw_npy(HEADER % b"999999999999, 999999999999")), MalformedInputError, "f: x.npy", "size of the values"),
    ("a negative dimension", _member(_raw_npy(HEADER % b"3, -4", X.tobytes())), MalformedInputError, "f: x.npy", "npy file"),
    ("underscores in a dimension", _member(_raw_npy(HEADER % b"3, 0_4", X.tobytes())), MalformedInputError, "f: x.npy", "npy file"),
    ("fewer values than declared", _member(_npy(X)[:-4]), MalformedInputError, "f: x.npy", "size of the values"),
    ("more values than declared", _member(_npy(X) + b"\0"), MalformedInputError, "f: x.npy", "size of the values"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "data", "error", "path", "rule"), NPZ, ids=[row[0] for row in NPZ])
def test_npz_refusals(sentence, data, error, path, rule) -> None:
    _refuses(error, path, rule, lambda: read_npz(data, "f", LIMITS))


def test_npz_with_a_member_twice_is_refused() -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = _zip([("x.npy", _npy(X)), ("x.npy", _npy(X + 1)), ("y.npy", _npy(Y))])
    _refuses(MalformedInputError, "f", "members", lambda: read_npz(data, "f", LIMITS))


def test_a_zip64_directory_cannot_hide_a_larger_one() -> None:
    data = _npz()
    locator = b"PK\x06\x07" + bytes(16)
    _refuses(MalformedInputError, "f", "npz archive", lambda: read_npz(data[:-22] + locator + data[-22:], "f", LIMITS))


def test_the_float64_refusal_says_what_to_do() -> None:
    with pytest.raises(MalformedInputError, match="astype"):
        read_npz(_npz(X.astype(np.float64)), "f", LIMITS)


def test_a_zip_bomb_is_refused_without_being_unpacked() -> None:
    bomb = _npz(np.zeros((1000, 4000), np.float32), np.zeros(1000, int))
    tracemalloc.start()
    with pytest.raises(LimitError):
        read_npz(bomb, "f", LIMITS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


# --- files ---


def test_only_regular_files_are_read(tmp_path) -> None:
    fifo, device, folder = (tmp_path / f"{name}.npz" for name in ("fifo", "device", "folder"))
    os.mkfifo(fifo)
    device.symlink_to("/dev/zero")
    folder.mkdir()
    for path in (fifo, device, folder, tmp_path / "absent.npz", tmp_path / "nul\0.npz"):
        with pytest.raises(MalformedInputError) as caught:
            load_records(str(path), what="forget set")
        assert (caught.value.path, caught.value.rule) == (str(path), "forget set")


def test_a_file_beyond_the_limit_is_not_read(tmp_path) -> None:
    path = tmp_path / "sparse.npz"
    with path.open("wb") as stream:
        stream.truncate(2**33)
    _refuses(LimitError, str(path), "size of r", lambda: load_records(str(path), what="r", max_bytes=2**16))


@pytest.mark.parametrize("spec", ["", "records", "x.npy", "x.pt", "x.pkl"])
def test_another_kind_of_file_is_refused_with_the_kinds_there_are(spec) -> None:
    with pytest.raises(MalformedInputError, match=r"FILE\.npz, FILE\.csv or IMAGES,LABELS"):
        load_records(spec, what="forget set")


# --- idx ---


def _idx(array, *, zipped=False) -> bytes:
    array = np.asarray(array, np.uint8)
    data = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    return gzip.compress(data) if zipped else data


PIXELS = np.array([[[0, 51], [102, 255]], [[1, 2], [3, 4]], [[9, 8], [7, 6]]])
IMAGES, CLASSES = _idx(PIXELS), _idx([5, 3, 9])


def _load_idx(folder: Path, images=IMAGES, labels=CLASSES, indices=None, **options) -> Records:
    spec = f"{folder / 'i'},{folder / 'l'}"
    (folder / "i").write_bytes(images)
    (folder / "l").write_bytes(labels)
    if indices is not None:
        (folder / "n.txt").write_bytes(indices)
        spec += f":{folder / 'n.txt'}"
    return load_records(spec, what="retain set", **options)


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_divides_grey_levels_by_255_in_float32(zipped, tmp_path) -> None:
    found = _load_idx(tmp_path, _idx(PIXELS, zipped=zipped), _idx([5, 3, 9], zipped=zipped))
    assert (found.x.shape, found.y.tolist()) == ((3, 2, 2), [5, 3, 9])
    assert found.x.tobytes() == (PIXELS.astype(np.float32) / np.float32(255)).tobytes()


def test_idx_takes_the_rows_that_are_named_in_their_order(tmp_path) -> None:
    found = _load_idx(tmp_path, indices=b"2\n0\n")
    assert found.y.tolist() == [9, 5]
    assert found.rows[0].tolist() == (np.array([9, 8, 7, 6], np.float32) / np.float32(255)).tolist()


BOMB = b"\0\0\x08\x03" + struct.pack(">3I", 1000, 100, 100) + bytes(10**7)
IDX = [
    ("an empty file", b"", CLASSES, None, MalformedInputError, "i", "idx file"),
    ("another magic", b"\0\0\x0d" + IMAGES[3:], CLASSES, None, MalformedInputError, "i", "idx file"),
    ("no axes", b"\0\0\x08\0", CLASSES, None, MalformedInputError, "i", "idx file"),
    ("255 axes", b"\0\0\x08\xff" + bytes(2000), CLASSES, None, MalformedInputError, "i", "idx file"),
    ("a truncated header", IMAGES[:9], CLASSES, None, MalformedInputError, "i", "idx file"),
    ("truncated values", IMAGES[:-1], CLASSES, None, MalformedInputError, "i", "idx file"),
    ("bytes behind the values", IMAGES + b"\0", CLASSES, None, MalformedInputError, "i", "idx file"),
    ("no records", _idx(PIXELS[:0]), _idx([]), None, MalformedInputError, "i", "shape"),
    ("sizes that overflow", b"\0\0\x08\x08" + b"\xff" * 32, CLASSES, None, LimitError, "i", "unpacked size"),
    ("labels for images", CLASSES, CLASSES, None, MalformedInputError, "i", "shape"),
    ("images for labels", IMAGES, IMAGES, None, MalformedInputError, "l", "one label per row"),
    ("fewer labels than images", IMAGES, _idx([5, 3]), None, MalformedInputError, "l", "one label per row"),
    ("a gzip bomb", gzip.compress(BOMB), CLASSES, None, LimitError, "i", "compression ratio"),
    ("a bomb behind an honest header", gzip.compress(IMAGES + bytes(10**7)), CLASSES, None, MalformedInputError, "i", "idx file"),
    ("a truncated gzip file", gzip.compress(IMAGES)[:-9], CLASSES, None, MalformedInputError, "i", "idx file"),
    ("a gzip file of another checksum", gzip.compress(IMAGES)[:-8] + bytes(4) + gzip.compress(IMAGES)[-4:], CLASSES, None, MalformedInputError, "i", "idx file"),
    ("bytes behind the gzip file", gzip.compress(IMAGES) + b"more", CLASSES, None, MalformedInputError, "i", "idx file"),
    ("gzip magic alone", b"\x1f\x8b", CLASSES, None, MalformedInputError, "i", "idx file"),
    ("a row beyond the last", IMAGES, CLASSES, b"0\n3\n", MalformedInputError, "n.txt: entry 1", "row number"),
    ("a row twice", IMAGES, CLASSES, b"1\n1\n", MalformedInputError, "n.txt: entry 1", "row number"),
    ("a negative row", IMAGES, CLASSES, b"-1\n", MalformedInputError, "n.txt: entry 0", "row number"),
    ("an underscore in a row number", IMAGES, CLASSES, b"0_1\n", MalformedInputError, "n.txt: entry 0", "row number"),
    ("Arabic digits", IMAGES, CLASSES, "\u0661".encode(), MalformedInputError, "n.txt", "row numbers"),
    ("no row", IMAGES, CLASSES, b"\n", MalformedInputError, "n.txt", "row numbers"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sentence", "images", "labels", "indices", "error", "path", "rule"), IDX, ids=[r[0] for r in IDX]
)
def test_idx_refusals(sentence, images, labels, indices, error, path, rule, tmp_path) -> None:
    call = lambda: _load_idx(tmp_path, images, labels, indices, max_bytes=2**24)  # noqa: E731
    _refuses(error, f"{tmp_path}/{path}", rule, call)


# --- csv ---

ENCODING = Encoding(
    (NumberColumn("age", Fraction(10), Fraction(90)), CategoryColumn("work", ("?", "Private", "State"))),
    "income",
    ("low", "high"),
)
TABLE = "age, work, income\n50, Private, high\n10, ?, low\n\n"


def _load_csv(folder: Path, text: str | bytes, encoding=ENCODING, label="income", names=(), **options) -> Records:
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "t.csv").write_bytes(data)
    named = None
    if encoding is not None:
        named = folder / "encoding.json"
        named.write_bytes(encoding if isinstance(encoding, bytes) else emit_encoding(encoding))
    return load_records(
        str(folder / "t.csv"), what="forget set", label_column=label, names=names, encoding=named, **options
    )


def test_csv_scales_numbers_and_takes_categories_one_hot(tmp_path) -> None:
    found = _load_csv(tmp_path, TABLE)
    assert found.x.tolist() == [[0.5, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0]]
    assert found.y.tolist() == [1, 0]
    assert found.encoding_sha256 == ENCODING.sha256
    assert found.x.flags.writeable


def test_csv_columns_are_found_by_name_and_ordered_by_the_encoding(tmp_path) -> None:
    moved = _load_csv(tmp_path, 'income,work,age\nhigh,"Private",50\nlow,?,10\n')
    assert moved.x.tolist() == _load_csv(tmp_path, TABLE).x.tolist()


def test_csv_without_header_takes_names_or_numbers(tmp_path) -> None:
    rows = TABLE.split("\n", 1)[1]
    assert (
        _load_csv(tmp_path, rows, names=("age", "work", "income")).x.tolist() == _load_csv(tmp_path, TABLE).x.tolist()
    )
    plain = _load_csv(tmp_path, "0.5,1,-0.25\n.125,0,1e-1\n", None, "1")
    assert plain.x.tolist() == [[0.5, -0.25], [0.125, float(np.float32(0.1))]]
    assert (plain.y.tolist(), plain.encoding_sha256) == ([1, 0], None)


CSV = [
    ("an unlisted category", "age,work,income\n50,Federal,low\n", ENCODING, "income", ": line 2, column 'work'", "category"),
    ("a category in another case", "age,work,income\n50,private,low\n", ENCODING, "income", ": line 2, column 'work'", "category"),
    ("a missing number", "age,work,income\n50,?,low\n?,?,low\n", ENCODING, "income", ": line 3, column 'age'", "cell"),
    ("NaN", "age,work,income\nNaN,?,low\n", ENCODING, "income", ": line 2, column 'age'", "cell"),
    ("infinity", "age,work,income\n-inf,?,low\n", ENCODING, "income", ": line 2, column 'age'", "cell"),
    ("Arabic digits", "age,work,income\n\u0661\u0662,?,low\n", ENCODING, "income", ": line 2, column 'age'", "cell"),
    ("underscores", "age,work,income\n1_0,?,low\n", ENCODING, "income", ": line 2, column 'age'", "cell"),
    ("a fraction", "age,work,income\n1/2,?,low\n", ENCODING, "income", ": line 2, column 'age'", "cell"),
    ("a huge exponent", "age,work,income\n1e2000000,?,low\n", ENCODING, "income", ": line 2, column 'age'", "cell"),
    ("a million digits", f"age,work,income\n{'1' * 100_000},?,low\n", ENCODING, "income", ": line 2, column 'age'", "cell"),
    ("beyond float32", "age,work,income\n1e99,?,low\n", ENCODING, "income", ": line 2, column 'age'", "range of float32"),
    ("an empty cell", "age,work,income\n,?,low\n", ENCODING, "income", ": line 2, column 'age'", "cell"),
    ("an unlisted label", "age,work,income\n50,?,middle\n", ENCODING, "income", ": line 2, column 'income'", "label"),
    ("a short row", "age,work,income\n50,?,low\n50,?\n", ENCODING, "income", ": line 3", "cells"),
    ("a long row", "age,work,income\n50,?,low,1\n", ENCODING, "income", ": line 2", "cells"),
    ("a missing column", "age,income\n50,low\n", ENCODING, "income", "", "columns"),
    ("a further column", "age,work,sex,income\n50,?,f,low\n", ENCODING, "income", "", "columns"),
    ("a column twice", "age,age,income\n50,?,low\n", ENCODING, "income", ": line 1", "column names"),
    ("a column without a name", "age,,income\n50,?,low\n", ENCODING, "income", ": line 1", "column names"),
    ("no such label column", TABLE, ENCODING, "wages", "", "label column"),
    ("another label column than the encoding's", TABLE, ENCODING, "work", "", "label column"),
    ("a header and nothing else", "age,work,income\n", ENCODING, "income", "", "table"),
    ("an empty file", "", ENCODING, "income", "", "table"),
    ("a byte order mark", "\ufeff" + TABLE, ENCODING, "income", "", "text"),
    ("not UTF-8", TABLE.encode("utf-16"), ENCODING, "income", "", "text"),
    ("a quote that never ends", 'age,work,income\n50,"?,low\n', ENCODING, "income", ": line 2", "csv"),
    ("a cell of 200,000 characters", f"age,work,income\n{'1' * 200_000},?,low\n", ENCODING, "income", ": line 2", "csv"),
    ("no label column given", TABLE, ENCODING, None, "", "forget set"),
    ("a category without an encoding", TABLE, None, "income", ": line 2, column 'income'", "label"),
    ("a category cell without an encoding", "a,b\nx,1\n", None, "b", ": line 2, column 'a'", "cell"),
    ("a label with a fraction", "a,b\n1,1.0\n", None, "b", ": line 2, column 'b'", "label"),
    ("a negative label", "a,b\n1,-1\n", None, "b", ": line 2, column 'b'", "label"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "text", "encoding", "label", "path", "rule"), CSV, ids=[row[0] for row in CSV])
def test_csv_refusals(sentence, text, encoding, label, path, rule, tmp_path) -> None:
    call = lambda: _load_csv(tmp_path, text, encoding, label)  # noqa: E731
    _refuses(MalformedInputError, f"{tmp_path}/t.csv{path}", rule, call)


def test_csv_rows_are_limited_while_they_are_read(tmp_path) -> None:
    text = "a,b\n" + "1,1\n" * 50
    _refuses(
        LimitError,
        f"{tmp_path}/t.csv",
        "number of records",
        lambda: _load_csv(tmp_path, text, None, "b", max_records=49),
    )
    wide = Encoding((CategoryColumn("a", tuple(str(i) for i in range(1000))),), "b", ("1",))
    call = lambda: _load_csv(tmp_path, text, wide, "b", max_bytes=100_000)  # noqa: E731
    _refuses(LimitError, f"{tmp_path}/t.csv", "size of the float32 values", call)


def test_forgetting_known_cells_changes_nothing(tmp_path, monkeypatch) -> None:
    found = _load_csv(tmp_path, TABLE)
    monkeypatch.setattr(record_csv, "_REMEMBERED", 1)
    assert _load_csv(tmp_path, TABLE).x.tolist() == found.x.tolist()


def test_a_fitted_encoding_reads_its_own_table(tmp_path) -> None:
    (tmp_path / "t.csv").write_text(TABLE)
    fitted = fit_encoding(tmp_path / "t.csv", "income")
    number = NumberColumn("age", Fraction(10), Fraction(50))
    assert fitted == Encoding((number, CategoryColumn("work", ("?", "Private"))), "income", ("high", "low"))
    assert parse_encoding(emit_encoding(fitted), "e") == fitted
    assert _load_csv(tmp_path, TABLE, fitted).x.tolist() == [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    assert fitted.width == 3


def test_a_fitted_encoding_sorts_numbered_labels_by_number_and_widens_a_constant(tmp_path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n3,10\n3,9\n")
    fitted = fit_encoding(tmp_path / "t.csv", "b")
    assert fitted == Encoding((NumberColumn("a", Fraction(3), Fraction(4)),), "b", ("9", "10"))


def _with(**changes) -> bytes:
    number = {"kind": "number", "lower": "0", "name": "a", "upper": "1"}
    top = {"columns": [number], "formatVersion": 1, "label": {"name": "b", "values": ["0"]}}
    return canonical_json({**top, **changes})


NUMBER = {"kind": "number", "lower": "0", "name": "a", "upper": "1"}
ENCODINGS = [
    ("as it should be", _with(), None, ""),
    ("another version", _with(formatVersion=2), UnsupportedVersionError, "e/formatVersion"),
    ("an unknown member", _with(more=1), MalformedInputError, "e"),
    ("an unknown kind", _with(columns=[{**NUMBER, "kind": "text"}]), MalformedInputError, "e/columns/0/kind"),
    ("no columns", _with(columns=[]), MalformedInputError, "encoding"),
    ("a column twice", _with(columns=[NUMBER, NUMBER]), MalformedInputError, "encoding"),
    ("the label among the columns", _with(label={"name": "a", "values": ["0"]}), MalformedInputError, "encoding"),
    ("a label value twice", _with(label={"name": "b", "values": ["0", "0"]}), MalformedInputError, "encoding/label"),
    ("no label value", _with(label={"name": "b", "values": []}), MalformedInputError, "encoding/label"),
    ("an empty range", _with(columns=[{**NUMBER, "lower": "1"}]), MalformedInputError, "column 'a'"),
    ("a float", _with().replace(b'"lower":"0"', b'"lower":0.0'), MalformedInputError, "e"),
    ("a longer decimal", _with(columns=[{**NUMBER, "upper": "1.0"}]), MalformedInputError, "e"),
    ("other white space", _with() + b"\n", MalformedInputError, "e"),
    ("a category twice", _with(columns=[{"kind": "category", "name": "a", "values": ["x", "x"]}]), MalformedInputError, "column 'a'"),
    ("no category", _with(columns=[{"kind": "category", "name": "a", "values": []}]), MalformedInputError, "column 'a'"),
    ("a category with a range", _with(columns=[{**NUMBER, "kind": "category"}]), MalformedInputError, "e/columns/0"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "data", "error", "path"), ENCODINGS, ids=[row[0] for row in ENCODINGS])
def test_encoding_files(sentence, data, error, path) -> None:
    if error is None:
        assert emit_encoding(parse_encoding(data, "e")) == data
        return
    with pytest.raises(error) as caught:
        parse_encoding(data, "e")
    assert caught.value.path == path


@given(st.fractions(min_value=-2, max_value=2, max_denominator=2**80))
@example(
    Fraction(2**24 + 1, 2**24) + Fraction(1, 2**80)
)  # above the middle of two float32 values by less than float64 shows
@example(Fraction(2**24 + 1, 2**24) - Fraction(1, 2**80))
@example(Fraction(2**24 + 1, 2**24))
@example(Fraction(3, 2**150))
@example(Fraction(1, 10**200))
@example(-(Fraction(10) ** 38))
def test_numbers_are_rounded_once_to_the_nearest_float32(value) -> None:
    found = nearest_float32(value, "p")
    error = abs(Fraction(float(found)) - value)
    for neighbour in (np.nextafter(found, np.float32(np.inf)), np.nextafter(found, np.float32(-np.inf))):
        other = abs(Fraction(float(neighbour)) - value)
        assert error <= other
        if error == other:
            assert int(found.view(np.uint32)) % 2 == 0


# --- against a network ---


def _at(row: int, place: int, value) -> np.ndarray:
    """X with another value in one place."""
    changed = X.copy()
    changed[row, place] = value
    return changed


HALF = Domain((Fraction(0),) * 4, (Fraction(1), Fraction(1), Fraction(1, 2), Fraction(1)))
TENTH = Domain((Fraction(0),), (Fraction(1, 10),))
ABOVE = Domain((Fraction(float(np.float32(0.3))) + Fraction(1, 10**30),), (Fraction(1),))
CHECKS = [
    ("no record", (X[:0], Y[:0]), (4,), UNIT, "r", "size of the retain set"),
    ("another number of values", (X, Y), (5,), UNIT, "r", "shape of the retain set"),
    ("a label beyond the logits", (X, [0, 3, 1]), (4,), UNIT, "r: row 1", "label in the retain set"),
    ("a negative label", (X, [0, 0, -1]), (4,), UNIT, "r: row 2", "label in the retain set"),
    ("NaN", (_at(1, 2, np.nan), Y), (4,), UNIT, "r: row 1, value 2", "value in the retain set"),
    ("infinity", (_at(2, 3, np.inf), Y), (4,), UNIT, "r: row 2, value 3", "value in the retain set"),
    ("above the domain by one ulp", (_at(0, 1, np.nextafter(np.float32(1), np.float32(2))), Y), (4,), UNIT, "r: row 0, value 1", "domain of the retain set"),
    ("below the domain by the least float32", (_at(0, 1, np.float32(-1e-45)), Y), (4,), UNIT, "r: row 0, value 1", "domain of the retain set"),
    ("beyond one coordinate's interval", (X, Y), (4,), HALF, "r: row 2, value 2", "domain of the retain set"),
    ("an upper end that float32 rounds up", (np.full((1, 1), 0.1), [0]), (1,), TENTH, "r: row 0, value 0", "domain of the retain set"),
    ("a lower end that float32 rounds down", (np.full((1, 1), 0.3), [0]), (1,), ABOVE, "r: row 0, value 0", "domain of the retain set"),
    ("a domain of another length", (X, Y), (4,), Domain((Fraction(0),) * 3, (Fraction(1),) * 3), "domain", "one interval per input number"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sentence", "data", "shape", "domain", "path", "rule"), CHECKS, ids=[row[0] for row in CHECKS]
)
def test_check_against_refusals(sentence, data, shape, domain, path, rule) -> None:
    records = _records(*data)
    call = lambda: check_against(records, input_shape=shape, labels=3, domain=domain, what="retain set")  # noqa: E731
    _refuses(MalformedInputError, path, rule, call)


@pytest.mark.parametrize("shape", [(4,), (4, 1), (2, 2), (1, 2, 2)])
def test_rows_of_as_many_values_take_the_networks_shape(shape) -> None:
    found = check_against(_records(), input_shape=shape, labels=3, domain=UNIT, what="forget set")
    assert found.x.shape == (3, *shape)
    assert canonical_records(found) == canonical_records(_records())


def test_a_record_on_the_domains_ends_is_inside() -> None:
    ends = _records([[0.0, -0.0, 1.0, np.float32(0.1)]], [0])
    upper = Fraction(float(np.float32(0.1)))
    domain = Domain((Fraction(0), Fraction(0), Fraction(0), upper), (Fraction(1),) * 4)
    assert len(check_against(ends, input_shape=(4,), labels=1, domain=domain, what="forget set")) == 1


def test_records_keep_their_data_types() -> None:
    _refuses(MalformedInputError, "r", "data types", lambda: Records(X.astype(np.float64), Y, None, "r"))
    _refuses(MalformedInputError, "r", "shapes", lambda: Records(X, Y[:2], None, "r"))
    _refuses(MalformedInputError, "r", "shapes", lambda: Records(X[0], Y[:1], None, "r"))


# --- one spelling ---


def test_a_canonical_record_byte_by_byte() -> None:
    row = np.array([[1.0, -0.0]], np.float32)
    expected = b"prune-verify/record/v1\0" + bytes.fromhex(
        "00000001 0000000000000002 0000803f 00000080 0000000000000007"
    )
    assert canonical_record(row, 7) == expected
    assert canonical_record(row.T, 7) == expected
    assert canonical_record(np.asfortranarray(row), 7) == expected


@given(st.binary(min_size=4, max_size=24), st.binary(min_size=4, max_size=24), st.integers(0, 9), st.integers(0, 9))
def test_records_of_other_bits_or_labels_have_other_bytes(a, b, label_a, label_b) -> None:
    rows = [np.frombuffer(data[: len(data) // 4 * 4], "<f4") for data in (a, b)]
    same = rows[0].tobytes() == rows[1].tobytes() and label_a == label_b
    assert (canonical_record(rows[0], label_a) == canonical_record(rows[1], label_b)) == same


def test_canonical_records_refuse_rounding_and_labels_that_are_none() -> None:
    _refuses(MalformedInputError, "record", "data type", lambda: canonical_record(X[0].astype(np.float64), 0))
    for label in (-1, 2**63, 2**64):
        _refuses(MalformedInputError, "record", "label", lambda label=label: canonical_record(X[0], label))


def test_duplicates_compare_values_whatever_label_shape_or_sign_of_zero() -> None:
    a = _records([[0.0, 1.0], [2.0, 3.0], [0.0, 1.0]], [0, 1, 2])
    b = Records(np.array([[[9.0], [9.0]], [[-0.0], [1.0]], [[0.0], [1.0]]], np.float32), np.array([7, 7, 7]), None, "b")
    assert duplicates_between(a, b) == [(0, 1), (0, 2), (2, 1)]
    assert duplicates_between(a, _records([[0.0], [1.0]], [0, 1])) == []


def test_many_copies_of_one_record_do_not_multiply() -> None:
    copies = _records(np.ones((2000, 1)), np.zeros(2000))
    assert len(duplicates_between(copies, copies)) == 3999


def test_a_set_as_large_as_mnist_is_committed_in_seconds() -> None:
    records = _records(np.random.default_rng(0).random((59_000, 784), np.float32), np.zeros(59_000))
    start = time.perf_counter()
    set_root(bytes(32), canonical_records(records))
    assert time.perf_counter() - start < 3


# --- any bytes ---


def _result_or_refusal(call) -> None:
    """The call gives records or a CheckError; another exception fails the test by itself."""
    with contextlib.suppress(CheckError):
        assert len(call()) > 0


def _spoil(data: bytes, places) -> bytes:
    spoiled = bytearray(data)
    for place, value in places:
        spoiled[place % len(spoiled)] = value
    return bytes(spoiled)


PLACES = st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), min_size=1, max_size=4)


@given(st.one_of(st.binary(max_size=300), PLACES, st.integers(0, 800)))
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_any_npz_bytes(method, change) -> None:
    whole = _npz(method=method)
    data = change if isinstance(change, bytes) else whole[:change] if isinstance(change, int) else _spoil(whole, change)
    _result_or_refusal(lambda: read_npz(data, "f", LIMITS))


@given(st.one_of(st.binary(max_size=200), PLACES))
def test_any_npy_bytes_in_an_honest_archive(change) -> None:
    member = change if isinstance(change, bytes) else _spoil(_npy(X), change)
    _result_or_refusal(lambda: read_npz(_member(member), "f", LIMITS))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("records")


@given(data=st.one_of(st.binary(max_size=60), PLACES), zipped=st.booleans(), indices=st.none() | st.binary(max_size=8))
def test_any_idx_bytes(scratch, data, zipped, indices) -> None:
    images = data if isinstance(data, bytes) else _spoil(_idx(PIXELS, zipped=zipped), data)
    _result_or_refusal(lambda: _load_idx(scratch, images, CLASSES, indices, max_bytes=2**20))
    _result_or_refusal(lambda: _load_idx(scratch, IMAGES, images, max_bytes=2**20))


@given(
    st.one_of(st.binary(max_size=80), st.text(max_size=80).map(lambda t: t.encode("utf-8", "surrogatepass")), PLACES)
)
@pytest.mark.parametrize("label", ["income", "2"])
@pytest.mark.parametrize("encoding", [ENCODING, None])
def test_any_csv_bytes(scratch, encoding, label, change) -> None:
    data = change if isinstance(change, bytes) else _spoil(TABLE.encode(), change)
    _result_or_refusal(lambda: _load_csv(scratch, data, encoding, label, max_bytes=2**20))
    (scratch / "t.csv").write_bytes(data)
    _result_or_refusal(lambda: fit_encoding(scratch / "t.csv", label).columns)


@given(st.one_of(st.binary(max_size=80), PLACES))
def test_any_encoding_bytes(scratch, change) -> None:
    data = change if isinstance(change, bytes) else _spoil(emit_encoding(ENCODING), change)
    _result_or_refusal(lambda: _load_csv(scratch, TABLE, data, "income", max_bytes=2**20))


@given(st.text(max_size=40))
@example("\ud800.npz")
@example(",")
@example(":,:")
@example("a" * 5000 + ".csv")
def test_any_name(spec) -> None:
    _result_or_refusal(lambda: load_records(f"/nowhere/{spec}", what="forget set", label_column="a"))
