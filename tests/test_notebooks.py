"""The notebooks run from clean, in an empty folder and a process of their own, over sockets of the file system only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
RUN = """
import sys
import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

source, target, folder = sys.argv[1:]
notebook = nbformat.read(source, as_version=4)
manager = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=folder + "/kernel")
NotebookClient(notebook, km=manager, timeout=240, resources={"metadata": {"path": folder}}).execute()
nbformat.write(notebook, target)
"""

pytestmark = pytest.mark.prover


def test_there_are_notebooks() -> None:
    assert {"01", "02", "04"} <= {path.name[:2] for path in NOTEBOOKS}


def require_no_outputs_or_those_of_one_run(cells: list[dict[str, object]]) -> None:
    """What is committed was never run, or from top to bottom without an error."""
    outputs = [output for cell in cells for output in cell["outputs"]]
    counts = [cell["execution_count"] for cell in cells]
    assert counts == (list(range(1, len(cells) + 1)) if outputs else [None] * len(cells))
    assert not any(output["output_type"] == "error" for output in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_notebook_runs_from_clean(path: Path, tmp_path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert "".join(cells[0]["source"]).splitlines()[0].startswith("# ")
    assert "".join(cells[0]["source"]).splitlines()[0].endswith("?"), "titles are questions"
    require_no_outputs_or_those_of_one_run([cell for cell in cells if cell["cell_type"] == "code"])
    folders = {"IPYTHONDIR": str(tmp_path / "ipython"), "MPLCONFIGDIR": str(tmp_path / "matplotlib")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, str(path), str(tmp_path / "run.ipynb"), str(tmp_path)],
        env={**os.environ, **folders, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    executed = json.loads((tmp_path / "run.ipynb").read_text(encoding="utf-8"))["cells"]
    pictures = [o for cell in executed for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert pictures
