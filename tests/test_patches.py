"""The reference patches: each fits the base that it names, rebuilds, and does what its request asks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prune_verify.checker.claim import Claim, LabelledRows, Problem, decide
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.network import Network, evaluate
from prune_verify.checker.patch import JointPatch, Patch
from prune_verify.checker.patch_json import parse_patch
from prune_verify.checker.rebuild import build
from prune_verify.request import Request, parse_request

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "certs" / "examples" / "digits-records"
FOLDERS = sorted(path for path in (ROOT / "patches").iterdir() if path.is_dir())
BASE = load_network((SOURCE / "base.onnx").read_bytes(), "base.onnx").network


def rows(name: str) -> LabelledRows:
    with np.load(SOURCE / f"{name}.npz") as found:
        return LabelledRows(found["x"], found["y"])


def read(folder: Path) -> tuple[Patch, Request, Network]:
    file = parse_patch((folder / "patch.json").read_bytes(), "patch.json")
    assert file.base_network == BASE.digest()
    return file.patch, parse_request((folder / "request.json").read_bytes(), "request.json"), build(BASE, file.patch)


def test_there_is_one_of_every_family() -> None:
    found = {read(folder)[0].family for folder in FOLDERS}
    assert found == {"box", "class-cap", "learned", "linear-region"}
    assert all((folder / "README.md").read_text().count("sha256") == 1 for folder in FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS, ids=[folder.name for folder in FOLDERS])
def test_a_reference_patch_does_what_its_request_asks(folder: Path) -> None:
    patch, request, patched = read(folder)
    forget, retain = rows("forget"), rows("retain")
    if isinstance(patch, JointPatch):
        problem = Problem(BASE, patched, patch, request.domain, forget, retain)
        for kind in {"forget", "band", "retain_exact", "locality"} & set(request.claims):
            of = request.retained_radius if kind == "retain_exact" else None if kind == "locality" else request.radius
            margin = request.margin if kind == "forget" else None
            outcome = decide(problem, Claim(kind, "ieee754-binary32", "structural", radius=of, margin=margin))
            assert outcome.proved == outcome.total, kind
    answers = evaluate(patched, forget.x).argmax(axis=1)
    if "forget" in request.claims:
        assert (answers != forget.y).all()
    for label in request.classes:
        assert not (evaluate(patched, retain.x).argmax(axis=1) == label).any()
