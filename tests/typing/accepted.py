"""Uses of the Python interface that mypy --strict must take. Checked by test_public_types.py, never run."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import assert_type

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import prune_verify
import prune_verify.api as pv


def owner(network: nn.Module, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64], tensor: Tensor) -> pv.Certificate:
    patched = pv.repair(network, forget=(x, y), retain=(tensor, tensor), example=x[:1], radius=0.1, out="out")
    assert_type(patched, pv.Patched)
    assert_type(patched.module(), nn.Module)
    assert_type(patched.conflicts, tuple[int, ...])
    statement = pv.certify(patched, timeout=5, workers=2, challenge="00" * 16)
    assert_type(statement, pv.Statement)
    measured = pv.measure("accuracy", patched, test=(x, y))
    assert_type(measured["test.accuracy.base"], float)
    pv.certify(patched, measurements=[measured, "other.json"])
    return pv.sign(statement, key=pv.keygen("owner"), out=Path("mine.unlearn.json"))


def forms(
    loader: DataLoader[tuple[Tensor, Tensor]], dataset: TensorDataset, own: Dataset[tuple[Tensor, int]], data: bytes
) -> None:
    pv.repair(data, forget=loader, retain=dataset, radius=Fraction(1, 10), out=Path("out"))
    pv.repair(
        "base.onnx", forget="forget.csv", label_column="y", retain=own, family="learned", domain=(0, "1"), out="out"
    )
    pv.repair("base.onnx", forget_class=[1, 2], out="out")
    pv.certify("patched.onnx", base="base.onnx", forget=loader, retain=loader, claims=["forget"], out="out")


def auditor(certificate: Path, x: npt.NDArray[np.float64], y: npt.NDArray[np.uint8]) -> bool:
    store = pv.trust("trust.json", {"owner.pub": "Owner"}, policy_template="regulator")
    verdict = pv.verify(certificate, trust=store, base="b.onnx", patched=b"", forget=(x, y), exact=True)
    assert_type(verdict.word, str)
    assert_type(verdict.data, Mapping[str, object])
    audited = pv.audit("http://h/v2/models/m", certificate=certificate, trust="t.json", policy="p.toml", queries=100)
    assert_type(audited, pv.Verdict)
    try:
        pv.verify(certificate, trust=store)
    except pv.RefusalError as error:
        assert_type(error.code, str)
        assert_type(error.exit_code, int)
    return bool(verdict)


assert_type(prune_verify.__version__, str)
