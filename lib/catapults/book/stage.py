"""The book's source tree as Sphinx reads it: static pages with generated blocks, and executed notebooks as pages."""

import ast
import pprint
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_markdown_cell

from ..display import MIME, table
from .chapter import Chapter
from .execute import Result
from .executed import claims, contents, shown, verdicts
from .report import not_run, report, report_pages, report_summary
from .runs import Run, difference, in_words


class StageError(Exception):
    """A page cannot go into the book; the message says which and why."""


def stage(root: Path, folder: Path, runs: Mapping[str, Run], results: Mapping[str, Result], preset: str) -> None:
    """Write the whole tree to ``folder``, which is emptied first.

    Raises :class:`StageError` for a picture without alternative text or caption and for a run that _toc.yml lacks.
    """
    toc = (root / "_toc.yml").read_text(encoding="utf-8")
    for name in runs:
        if f"chapters/{name}" not in re.findall(r"file:\s*(\S+)", toc):
            raise StageError(f"_toc.yml: has no entry `file: chapters/{name}` for run {name!r} of chapters/runs.yml")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "chapters").mkdir(parents=True)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(root / name, folder / name)
    shutil.copytree(root / "book", folder / "book")
    for page in (folder / "book").glob("*.md"):
        page.write_text(
            _with_generated_blocks(page.read_text(encoding="utf-8"), runs, results, preset), encoding="utf-8"
        )
    for name, run in runs.items():
        result = results[name]
        if result.notebook is None:
            (folder / "chapters" / f"{name}.md").write_text(_page_of_absent(run, result, preset), encoding="utf-8")
        else:
            nbformat.write(page_of(run, result.notebook, runs, preset), folder / "chapters" / f"{name}.ipynb")


def page_of(run: Run, executed: nbformat.NotebookNode, runs: Mapping[str, Run], preset: str) -> nbformat.NotebookNode:
    """The executed notebook as a page: title, what preset made it, figures with number, caption and alternative text.

    A run other than the chapter's main one leaves out the cells tagged ``main-page`` and says how it differs.
    """
    notebook = shown(run, executed)
    cells = notebook.cells
    if not run.is_main:
        cells = [new_markdown_cell("", id="title")] + cells
    cells[0].source = re.sub(r"^# .*$", "", cells[0].source, count=1, flags=re.MULTILINE).strip()
    cells[0].source = f"# {run.title}\n\n{_box(run, runs, preset)}\n\n{cells[0].source}".strip()
    for cell in cells:
        for output in cell.get("outputs", []):
            content = output.get("data", {}).pop(MIME, {})
            if content.get("kind") == "figure":
                _make_figure(cell, content, run)
            elif any(kind.startswith("image/") for kind in output.get("data", {})):
                raise StageError(
                    f"run {run.name!r}: a cell shows a picture without caption and alternative text; allowed are "
                    f"figures of catapults.figures. The cell:\n{cell.source}"
                )
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = _with_values(cell.source, run.chapter, run.settings[preset])
    notebook.cells = cells
    notebook.metadata.pop("papermill", None)
    return notebook


def _make_figure(cell: nbformat.NotebookNode, content: dict[str, Any], run: Run) -> None:
    for field in ("caption", "alt"):
        if not content[field].strip():
            raise StageError(f"run {run.name!r}: figure {content['name']!r} has no {field}")
    cell.metadata["mystnb"] = {
        "figure": {"caption": content["caption"], "name": f"fig-{run.name}-{content['name']}"},
        "image": {"alt": content["alt"]},
    }


def _with_values(source: str, chapter: Chapter, values: Mapping[str, Any]) -> str:
    """The parameters cell with the values that were injected, so that the page shows one cell that is true."""
    lines = source.splitlines()
    for node in reversed(ast.parse(source).body):
        name = node.target.id
        if name == "quoted":
            continue  # it says what to compare with; the table of claims shows that
        if values[name] != chapter.parameters[name].default:
            parameter = chapter.parameters[name]
            value = pprint.pformat(values[name], width=100, sort_dicts=False)
            shown = f"{name}: {parameter.annotation} = {value}  # {parameter.meaning}"
            lines[node.lineno - 1 : node.end_lineno] = shown.splitlines()
    return "\n".join(lines)


def _box(run: Run, runs: Mapping[str, Run], preset: str) -> str:
    lines = []
    if not run.is_main:
        changed = difference(run.settings[preset], runs[run.chapter.name].settings[preset])
        changed.pop("quoted", None)
        lines.append(
            f"The chapter [](/chapters/{run.chapter.name}) explains what this page shows; it is the same notebook, "
            f"executed with {in_words(changed)}."
        )
    if run.note:
        lines.append(run.note)
    lines.append(run.made_with(preset))
    if run.in_paper:
        lines.append(f"In the paper: {run.in_paper}.")
    return ":::{note}\n:class: preset\n" + "\n\n".join(lines) + "\n:::"


def _page_of_absent(run: Run, result: Result, preset: str) -> str:
    if result.missing_data:
        what = f":::{{warning}}\nNot run: data set missing.\n\n```text\n{result.missing_data}\n```\n:::"
    else:
        what = f":::{{danger}}\nThe run failed.\n\n```text\n{result.failure}\n```\n:::"
    return f"# {run.title}\n\nPreset **{preset}**.\n\n{what}\n"


def _with_generated_blocks(page: str, runs: Mapping[str, Run], results: Mapping[str, Result], preset: str) -> str:
    """The page with each line ``<!-- catapults:NAME ARGUMENTS -->`` replaced by what it names."""
    blocks: dict[str, tuple[tuple[str, ...], Callable[..., str]]] = {
        "summary": ((), lambda: summary(runs, results, preset)),
        "runs": ((), lambda: _table_of_presets(runs)),
        "parameters": (("CHAPTER",), lambda chapter: _table_of_parameters(_named(runs, chapter).chapter)),
        "report": ((), lambda: report(runs, results, preset)),
        "report-pages": ((), lambda: report_pages(runs, results, preset)),
        "report-summary": ((), lambda: report_summary(runs, results)),
        "claim": (("RUN", "CLAIM"), lambda run, claim: _evidence(_named(runs, run), results[run], claim)),
    }

    def block(match: re.Match) -> str:
        name, *arguments = match[1].split()
        names, make = blocks.get(name, ((), None))
        if make is None or len(arguments) != len(names):
            allowed = ", ".join(" ".join((block, *names)) for block, (names, _) in blocks.items())
            raise StageError(f"unknown generated block {match[0]!r}; allowed are {allowed}")
        return make(*arguments)

    return re.sub(r"^<!-- catapults:(.+?) -->$", block, page, flags=re.MULTILINE)


def _named(runs: Mapping[str, Run], name: str) -> Run:
    if name not in runs:
        raise StageError(f"generated block for run {name!r}: there is none; allowed are {', '.join(runs)}")
    return runs[name]


def _evidence(run: Run, result: Result, name: str) -> str:
    """A list item: what the run shows about one of its claims."""
    page = f"- [](/chapters/{run.name})"
    if result.notebook is None:
        return f"{page}: {not_run(result)}."
    found = claims(result.notebook)
    if name not in found:
        raise StageError(
            f"generated block for claim {name!r}: run {run.name!r} has none; allowed are {', '.join(found)}"
        )
    return f"{page}: {found[name]['sentence']}"


def summary(runs: Mapping[str, Run], results: Mapping[str, Result], preset: str) -> str:
    """What the book holds: a line for each run with the verdicts on its claims."""
    rows = []
    for name, run in runs.items():
        result = results[name]
        if result.notebook is None:
            rows.append(
                (
                    f"[](/chapters/{name})",
                    run.in_paper or "–",
                    not_run(result),
                    "–",
                )
            )
            continue
        count = verdicts(result.notebook)
        facts = contents(result.notebook, "provenance")
        rows.append(
            (
                f"[](/chapters/{name})",
                run.in_paper or "–",
                ", ".join(f"{number} {verdict}" for verdict, number in count.items() if number) or "–",
                ", ".join(f"{fact['run time']} on {fact['device']}" for fact in facts),
            )
        )
    return f"This book was made with the preset **{preset}**.\n\n" + table(
        ("page", "in the paper", "claims", "run time"), rows
    )


def _table_of_presets(runs: Mapping[str, Run]) -> str:
    def changes(run: Run, preset: str) -> str:
        return ", ".join(f"`{n} = {ours!r}`" for n, (ours, _) in run.departures(preset).items()) or "the paper's sizes"

    rows = [
        (f"`{name}`", run.in_paper or "–", changes(run, "laptop"), changes(run, "smoke")) for name, run in runs.items()
    ]
    return table(("run", "in the paper", "`laptop`", "`smoke`"), rows)


def _table_of_parameters(chapter: Chapter) -> str:
    rows = [(f"`{p.name}`", f"`{p.annotation}`", f"`{p.default!r}`", p.meaning) for p in chapter.parameters.values()]
    return table(("parameter", "type", "default", "meaning"), rows)
