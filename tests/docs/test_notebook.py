"""The notebook runs from top to bottom and is kept without outputs."""

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "answer.ipynb"


def test_the_notebook_is_kept_without_outputs() -> None:
    import nbformat

    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.slow
def test_the_notebook_runs() -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": NOTEBOOK.parent}}).execute()
    told = "\n".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", []))
    assert "flexivit_nano" in told and "others could be best" in told and "page.html" in told
