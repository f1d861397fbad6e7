"""The book's source tree as Sphinx reads it: static pages with generated blocks, and executed notebooks as pages."""

import pprint
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat.v4 import new_markdown_cell

from ..display import MIME, table, with_math
from . import explorer, panels, reasons
from .chapter import Chapter
from .executed import shown
from .findings import findings
from .report import cost, not_run, report, report_pages, report_summary
from .runs import PRESETS, Run, difference, in_words
from .sheets import Sheet

RUN_SHEETS = "book/run_sheets"  # the page below which the sheets are that _toc.yml does not name
_WITH_PICTURES = {
    "figure",
    "gallery",
    "explorer",
    "batch-explorer",
}  # blocks with alternative texts, in which mathematics is plain text
_SHORT = 100  # characters of a value that is shown in one piece


class StageError(Exception):
    """A page cannot go into the book; the message says which and why."""


def stage(root: Path, folder: Path, sheets: Mapping[str, Sheet], preset: str) -> None:
    """Write the whole tree to ``folder``, which is emptied first.

    Raises :class:`StageError` for a picture without alternative text or caption and for a run that has no place in
    _toc.yml.
    """
    toc = with_run_sheets((root / "_toc.yml").read_text(encoding="utf-8"), sheets)
    earlier = {path.name: path.read_bytes() for path in (folder / panels.FOLDER).glob("*")}
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("chapters", panels.FOLDER):
        (folder / name).mkdir(parents=True)
    shutil.copy(root / "_config.yml", folder / "_config.yml")
    (folder / "_toc.yml").write_text(toc, encoding="utf-8")
    shutil.copytree(root / "book", folder / "book")
    for name, picture in panels.files(sheets, earlier).items():
        (folder / panels.FOLDER / name).write_bytes(picture)
    for page in (folder / "book").glob("*.md"):
        text = with_generated_blocks(page.read_text(encoding="utf-8"), sheets, preset)
        page.write_text(text, encoding="utf-8")
    runs = {name: sheet.run for name, sheet in sheets.items()}
    for name, sheet in sheets.items():
        place = folder / "chapters" / name
        if sheet.notebook is None:
            place.with_suffix(".md").write_text(page_of_absent(sheet), encoding="utf-8")
        else:
            page = page_of(sheet.run, sheet.notebook, runs, preset, reasons.of_page(sheet, sheets))
            for cell in page.cells:
                if cell.cell_type == "markdown":
                    cell.source = with_generated_blocks(cell.source, sheets, preset)
            place.with_suffix(".ipynb").write_text(nbformat.writes(page), encoding="utf-8")


def with_run_sheets(toc: str, names: Iterable[str]) -> str:
    """The table of contents with an entry below ``RUN_SHEETS`` for every run of these that it does not name itself.

    Raises :class:`StageError` if there is such a run, and no such page.
    """
    named = re.findall(r"file:\s*(\S+)", toc)
    left = [f"chapters/{name}" for name in names if f"chapters/{name}" not in named]
    if not left:
        return toc
    tree = yaml.safe_load(toc)
    pages = [page for part in tree.get("parts", [tree]) for page in part.get("chapters", [])]
    pages += [page for above in pages for page in above.get("sections", [])]
    below = next((page for page in pages if page["file"] == RUN_SHEETS), None)
    if below is None:
        raise StageError(
            f"_toc.yml: has no entry `file: {left[0]}`, and no `file: {RUN_SHEETS}` for all other run sheets"
        )
    below["sections"] = [*below.get("sections", []), *({"file": name} for name in left)]
    return yaml.safe_dump(tree, sort_keys=False)


def page_of(
    run: Run, executed: nbformat.NotebookNode, runs: Mapping[str, Run], preset: str, why: str = ""
) -> nbformat.NotebookNode:
    """The executed notebook as a page: title, what preset made it, its parameters as a table, figures with number,
    caption and alternative text, and below the table of claims ``why`` some do not hold.

    A run other than the chapter's main one leaves out the cells tagged ``main-page`` and says how it differs.
    """
    notebook = shown(executed, run.is_main)
    cells = notebook.cells
    if not run.is_main:
        cells = [new_markdown_cell("", id="title"), *cells]
    cells[0].source = re.sub(r"^# .*$", "", cells[0].source, count=1, flags=re.MULTILINE).strip()
    cells[0].source = f"# {run.title}\n\n{_box(run, runs, preset)}\n\n{cells[0].source}".strip()
    notebook.cells, told = [], False
    for cell in cells:
        judges = False
        for output in cell.get("outputs", []):
            content = output.get("data", {}).pop(MIME, {})
            judges |= content.get("kind") == "claims"
            if content.get("kind") == "figure":
                _make_figure(cell, content, run)
            elif any(kind.startswith("image/") for kind in output.get("data", {})):
                raise StageError(
                    f"run {run.name!r}: a cell shows a picture without caption and alternative text; allowed are "
                    f"figures of catapults.figures. The cell:\n{cell.source}"
                )
        if "parameters" in cell.metadata.get("tags", []):
            notebook.cells.append(new_markdown_cell(_parameters(run, runs, preset), id="parameters-table"))
            cell.source = _with_values(run.chapter, run.settings[preset])
            cell.metadata["tags"] = [*cell.metadata["tags"], "hide-input"]
        notebook.cells.append(cell)
        if why and judges and not told:
            notebook.cells.append(new_markdown_cell(with_math(why), id="why"))
            told = True
    notebook.cells.append(new_markdown_cell(_again(run), id="again"))
    notebook.metadata.pop("papermill", None)
    return notebook


def _again(run: Run) -> str:
    """The commands that make a page again."""
    commands = [(f"run {run.name}", "this page" + ", from the recorded results" * (not run.trains_itself))]
    if run.name != "performance" and not run.trains_itself:
        commands.append((f"record verify {run.name}", "train some of its results again, and compare"))
    for name, value in (("seed", "11"), ("seeds", '"[11]"')):
        if name in run.chapter.parameters:
            commands.append((f"run {run.name} -p {name}={value}", "the same with another seed"))
            break
    width = max(len(command) for command, _ in commands)
    lines = "\n".join(f"catapults {command.ljust(width)}  # {what}" for command, what in commands)
    return f"## The same again\n\n```shell\n{lines}\n```"


def _make_figure(cell: nbformat.NotebookNode, content: dict[str, Any], run: Run) -> None:
    for field in ("caption", "alt"):
        if not content[field].strip():
            raise StageError(f"run {run.name!r}: figure {content['name']!r} has no {field}")
    cell.metadata["mystnb"] = {
        "figure": {"caption": content["caption"], "name": f"fig-{run.name}-{content['name']}"},
        "image": {"alt": content["alt"]},
    }


def _parameters(run: Run, runs: Mapping[str, Run], preset: str) -> str:
    """All parameters of a page, in a table that shows the whole of them.

    Beside its values stand the paper's; in a chapter of which the paper has nothing, those of the full size.
    """
    ours, theirs = run.settings[preset], run.settings["paper"]
    rows = [
        (
            f"`{p.name}`",
            p.in_words,
            "same" if ours[p.name] == theirs[p.name] else written(theirs[p.name]),
            written(ours[p.name]),
            p.meaning,
        )
        for p in run.chapter.parameters.values()
    ]
    of_the_paper = any(other.items for other in runs.values() if other.chapter.name == run.chapter.name)
    header = ("parameter", "type", "the paper" if of_the_paper else "full size", "this page", "meaning")
    if run.trains_itself or (not of_the_paper and ours == theirs):  # of which a column would say nothing
        header, *rows = ((*row[:2], *row[3:]) for row in (header, *rows))
    return f":::{{div}} parameters\n{table(header, rows)}\n:::"


def written(value: Any) -> str:
    """A value in a cell of a table: lists and dictionaries that are long with a line for each item."""
    if len(repr(value)) > _SHORT and isinstance(value, dict):
        return "<br>".join(f"`{key!r}: {item!r}`" for key, item in value.items())
    if len(repr(value)) > _SHORT and isinstance(value, list):
        return "<br>".join(f"`{item!r}`" for item in value)
    return f"`{value!r}`"


def _with_values(chapter: Chapter, values: Mapping[str, Any]) -> str:
    """The parameters cell with the values of a page, so that it can be copied from there."""
    return "\n".join(
        f"{p.name}: {p.annotation} = {pprint.pformat(values[p.name], width=100, sort_dicts=False)}"
        for p in chapter.parameters.values()
    )


def _box(run: Run, runs: Mapping[str, Run], preset: str) -> str:
    lines = []
    if not run.is_main:
        changed = difference(run.settings[preset], runs[run.chapter.name].settings[preset])
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


def page_of_absent(sheet: Sheet) -> str:
    """The page of a run that cannot be shown: why, and what to do."""
    kind = "danger" if sheet.failure else "warning"
    what = f":::{{{kind}}}\n{_capitalised(not_run(sheet))}.\n\n```text\n{sheet.reason}\n```\n:::"
    note = f"{sheet.run.note}\n\n" if sheet.run.note else ""
    paper = f" In the paper: {sheet.run.in_paper}." if sheet.run.in_paper else ""
    return f"# {sheet.run.title}\n\n{note}{sheet.run.made_with(sheet.preset)}{paper}\n\n{what}\n"


def with_generated_blocks(page: str, sheets: Mapping[str, Sheet], preset: str) -> str:
    """The page with each line ``<!-- catapults:NAME ARGUMENTS -->`` replaced by what it names."""
    blocks: dict[str, tuple[tuple[str, ...], Callable[..., str]]] = {
        "findings": ((), lambda: findings(sheets)),
        "cost": ((), lambda: cost(sheets)),
        "run-sheets": ((), lambda: panels.table_of_sheets(sheets)),
        "figure": (("NUMBER",), lambda number: panels.block(int(number), sheets)),
        "gallery": ((), lambda: panels.gallery(sheets)),
        "explorer": ((), lambda: explorer.block(sheets)),
        "batch-explorer": ((), lambda: explorer.batches(sheets)),
        "runs": ((), lambda: _table_of_presets(sheets)),
        "parameters": (("CHAPTER",), lambda chapter: _table_of_parameters(_named(sheets, chapter).run.chapter)),
        "reasons": ((), lambda: reasons.by_kind(sheets)),
        "report": ((), lambda: report(sheets, preset)),
        "report-pages": ((), lambda: report_pages(sheets, preset)),
        "report-summary": ((), lambda: report_summary(sheets)),
        "claim": (("RUN", "CLAIM"), lambda run, claim: _evidence(_named(sheets, run), claim)),
    }

    def block(match: re.Match) -> str:
        name, *arguments = match[1].split()
        names, make = blocks.get(name, ((), None))
        if make is None or len(arguments) != len(names):
            allowed = ", ".join(" ".join((block, *names)) for block, (names, _) in blocks.items())
            raise StageError(f"unknown generated block {match[0]!r}; allowed are {allowed}")
        made = make(*arguments)
        return made if name in _WITH_PICTURES else with_math(made)

    return re.sub(r"^<!-- catapults:(.+?) -->$", block, page, flags=re.MULTILINE)


def _named(sheets: Mapping[str, Sheet], name: str) -> Sheet:
    if name not in sheets:
        raise StageError(f"generated block for run {name!r}: there is none; allowed are {', '.join(sheets)}")
    return sheets[name]


def _evidence(sheet: Sheet, name: str) -> str:
    """A list item: what the run shows about one of its claims."""
    page = f"- [](/chapters/{sheet.run.name})"
    if not sheet.complete:
        return f"{page}: {not_run(sheet)}."
    if name not in sheet.claims:
        there = ", ".join(sheet.claims)
        raise StageError(f"generated block for claim {name!r}: run {sheet.run.name!r} has none; allowed are {there}")
    return f"{page}: {sheet.claims[name].sentence}"


def _table_of_presets(sheets: Mapping[str, Sheet]) -> str:
    def changes(run: Run, preset: str) -> str:
        return ", ".join(f"`{n} = {ours!r}`" for n, (ours, _) in run.departures(preset).items()) or "the paper's sizes"

    shown = [preset for preset in reversed(PRESETS) if preset != "paper"]
    rows = [
        (f"`{name}`", sheet.run.in_paper or "–", *(changes(sheet.run, preset) for preset in shown))
        for name, sheet in sheets.items()
    ]
    return table(("run", "in the paper", *(f"`{preset}`" for preset in shown)), rows)


def _table_of_parameters(chapter: Chapter) -> str:
    rows = [(f"`{p.name}`", p.in_words, f"`{p.default!r}`", p.meaning) for p in chapter.parameters.values()]
    return table(("parameter", "type", "default", "meaning"), rows)


def _capitalised(words: str) -> str:
    return words[:1].upper() + words[1:]
