"""The adaptations of auto_LiRPA apply where needed, leave nothing behind, and say how to install what is missing."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from prune_verify.bounds import compat
from prune_verify.bounds.errors import BoundsUnavailableError

pytestmark = pytest.mark.prover

ROOT = Path(__file__).resolve().parents[2]

_AFTER_IMPORT = """
import logging, sys, warnings
import torch
import torch.onnx.symbolic_helper as helper
from prune_verify.bounds.compat import auto_lirpa
filters = list(warnings.filters)
library = auto_lirpa()
assert library is auto_lirpa()
assert warnings.filters == filters, "warning filters changed"
assert logging.getLogger().handlers == [], "the root logger has a handler"
assert "numpy.lib.arraysetops" not in sys.modules
assert not hasattr(helper, "_set_opset_version")
assert hasattr(torch._C.Node, "__getitem__") is {adapted}
assert hasattr(library.BoundedModule._named_members, "untouched") is not {adapted}
"""


def _run(code: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(p) for p in (*paths, ROOT))
    env = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=env, capture_output=True, text=True, check=False, timeout=120
    )


def test_the_pypi_release_is_adapted_silently_and_leaves_the_process_as_it_was() -> None:
    done = _run(_AFTER_IMPORT.format(adapted=True))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_newer_release_is_left_alone(tmp_path: Path) -> None:
    package = tmp_path / "auto_LiRPA"
    package.mkdir()
    (package / "parse_graph.py").write_text("")
    (package / "__init__.py").write_text(
        "class BoundedModule:\n"
        "    def _named_members(self, get_members_fn, prefix='', recurse=True, **kwargs): ...\n"
        "    _named_members.untouched = True\n"
    )
    done = _run(_AFTER_IMPORT.format(adapted=False), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("missing", ["torch", "auto_LiRPA", "appdirs", "tqdm", "packaging"])
def test_what_is_missing_is_named_with_the_exact_install_lines(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == missing else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    with pytest.raises(BoundsUnavailableError) as error:
        compat.auto_lirpa.__wrapped__()
    lines = [line.strip() for line in str(error.value).splitlines()]
    assert "pip install torch==2.13.0" in lines
    assert "pip install --no-deps auto_LiRPA==0.3" in lines
    assert "pip install appdirs tqdm packaging" in lines
    assert f"(there is no module {missing})" in lines


def test_a_release_that_cannot_be_imported_is_reported_and_not_raised_through(tmp_path: Path) -> None:
    (tmp_path / "auto_LiRPA").mkdir()
    (tmp_path / "auto_LiRPA" / "__init__.py").write_text("from numpy import no_such_name\n")
    done = _run("from prune_verify.bounds.compat import auto_lirpa\nauto_lirpa()", tmp_path)
    assert done.returncode == 1
    assert "BoundsUnavailableError" in done.stderr
    assert "pip install --no-deps auto_LiRPA==0.3" in done.stderr


def test_quiet_lets_nothing_out(capsys: pytest.CaptureFixture[str]) -> None:
    import warnings

    with compat.quiet():
        sys.stdout.write("noise")
        warnings.simplefilter("error")  # what a library may do
        warnings.simplefilter("once")
        warnings.warn("noise", DeprecationWarning, stacklevel=1)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
