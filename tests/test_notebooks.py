"""The notebooks run from clean, in an empty folder and a process of their own, and show the numbers that they are for.

The kernel talks over sockets of the file system; notebook 03 serves a model on 127.0.0.1, and nothing leaves the machine.
"""

from __future__ import annotations

import json
import os
import re
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

MOST_LINES = 60  # of a cell: what a reader sees at once
SHOWN = {  # by the number of the notebook: what its output has to say, as it runs here
    "01": ["forgotten label answered on 0 of 20,000 random inputs", "other training records unchanged: True"],
    "03": [
        "nothing: the honest one: VERIFIED OK",
        r"[1-9]\d* of 1494 digits in neither set are answered otherwise now",
        "strips the patch from the file: REJECTED E_SUBJECT, step 6",
        "signs with a key that nobody trusts: REJECTED E_SIGNATURE, step 3",
        "forges slopes in a proof: REJECTED E_PROOF, step 9",
        "replays an old certificate: REJECTED E_POLICY, step 5",
        r"serves the base: REJECTED E_DEVIATION, [1-9]\d* of 360 deviate",
        "17 of 24 were stopped",
        "Output suppression is not removal",
    ],
    "05": [
        "VERIFIED OK exit code 0",
        "C1  Forgotten records: 3 of 3 proved",
        "C3  Retained records, exact outputs: 300 of 300 proved",
        "an auditor who signs too: REJECTED E_SIGNATURE",
        "a commitment made before training: UNDECIDED E_DATA_MISSING",
        "VERDICT FILE: ACCEPTED states=VERIFIED",
        "record is yours: the same values, the same label",
        "packages of the prover that this notebook used: none",
    ],
    "06": [
        r"box +0% +100%",
        r"(?m)^ +box .*n/a$",
        r"retrain with both versions: 0\.\d\d \[0\.\d\d, 0\.\d\d\]",
        r"non-member, exact pool: 0\.\d\d \[",
        "box: 100% with the patch cut off, after 0 epochs",
    ],
    "04": ["z3 on the negation of record 0's goal: unsat"],
}

pytestmark = pytest.mark.prover


def test_there_are_notebooks() -> None:
    assert {"01", "02", "03", "04", "05", "06"} <= {path.name[:2] for path in NOTEBOOKS}


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
    codes = [cell for cell in cells if cell["cell_type"] == "code"]
    require_no_outputs_or_those_of_one_run(codes)
    assert max(len(cell["source"]) for cell in codes) <= MOST_LINES
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
    said = "\n".join("".join(o.get("text", "")) for cell in executed for o in cell.get("outputs", []))
    for pattern in SHOWN.get(path.name[:2], []):
        assert re.search(pattern, said), pattern
