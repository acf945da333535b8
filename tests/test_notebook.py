"""The notebook of the documentation runs from top to bottom, offline.

Its outputs are stored by ``jupyter execute --inplace docs/notebooks/tour.ipynb``.
"""

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

NOTEBOOK = ROOT / "docs/notebooks/tour.ipynb"
KIB = 1024
# seconds instead of half a minute, and fewer calls
SHORTER = {"MINUTES = 0.5": "MINUTES = 0.02", "steps=25": "steps=3"}


def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def codes(cells):
    return [cell for cell in cells if cell.cell_type == "code"]


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shortened = notebook()
    for text, short in SHORTER.items():
        (cell,) = (cell for cell in codes(shortened.cells) if text in cell.source)
        cell.source = cell.source.replace(text, short)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(shortened, timeout=300, kernel_name="python3", resources=resources).execute()

    stored = codes(notebook().cells)
    for new, old in zip(codes(shortened.cells), stored, strict=True):
        assert kinds(new) == kinds(old), new.source
    assert not list(tmp_path.iterdir())


def kinds(cell):
    """Which kinds of outputs a cell has."""
    return {
        kind
        for output in cell.outputs
        for kind in (output.get("data") or {output.get("name"): None})
    } - {"stderr"}


def test_it_is_stored_small_and_clean():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 300 * KIB
    assert '"stderr"' not in text and '"error"' not in text and '"execution"' not in text
    pictures = sum("image/jpeg" in kinds(cell) for cell in codes(notebook().cells))
    assert pictures == 5
