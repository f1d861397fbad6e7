"""What an executed notebook carries as data, and what of it its page shows."""

import copy
from typing import Any

import nbformat

from ..claims import VERDICTS
from ..display import MIME, Figure
from .runs import Run


def shown(run: Run, notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy with the cells of the run's page: pages other than the chapter's own leave out those for it alone."""
    left_out = {"injected-parameters"} if run.is_main else {"injected-parameters", "main-page"}
    page = copy.deepcopy(notebook)
    page.cells = [cell for cell in page.cells if not left_out & set(cell.metadata.get("tags", []))]
    return page


def contents(notebook: nbformat.NotebookNode, kind: str) -> list[dict[str, Any]]:
    """The data of a kind (claims, data, provenance, figure) that an executed notebook carries."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    found = (output.get("data", {}).get(MIME, {}) for output in outputs)
    return [content for content in found if content.get("kind") == kind]


def claims(notebook: nbformat.NotebookNode) -> dict[str, dict[str, Any]]:
    """The claims of a page by name: the fields of :class:`catapults.claims.Claim`.

    They come in the page's order, which a notebook that was written and read again has lost.
    """
    return {name: content["claims"][name] for content in contents(notebook, "claims") for name in content["order"]}


def pictures(notebook: nbformat.NotebookNode) -> list[Figure]:
    """The figures of an executed notebook."""
    found = (output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))
    figures = (data for data in found if data.get(MIME, {}).get("kind") == "figure")
    return [Figure(d["image/svg+xml"], d[MIME]["name"], d[MIME]["caption"], d[MIME]["alt"]) for d in figures]


def verdicts(notebook: nbformat.NotebookNode) -> dict[str, int]:
    """How many claims of a page have each verdict."""
    found = [claim["verdict"] for claim in claims(notebook).values()]
    return {verdict: found.count(verdict) for verdict in VERDICTS}
