"""The pictures that move: one network at many learning rates, from the results of chapter 5, and with batches of many
sizes, from those of chapter 4.

``book/_static/explorer.js`` draws the first and turns the pages of the second. Without scripts there is a static
picture of each, of the first one at ``START`` critical rates.
"""

import json
import math
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from ..experiments.agop_sgd import BatchRun
from ..experiments.fits import undiverged
from ..experiments.phases import Course, PhasesRun
from ..figures import agop as figures_of_batches
from ..figures import phases as figures
from ..paper.measurements import ALIGNMENT, STEPS_ABOVE, performance
from ..paper.phases import sentence
from .report import not_run
from .sheets import Sheet

RUN, BATCHES = "phases", "agop_sgd"
START = 1.67  # of the multiples of the critical rate, the one at which the picture stands at first: chapter 1's
_SHOWN = 40  # iterations
_HIGHEST = 1e3  # times the initial loss, above which curves leave the picture


def block(sheets: Mapping[str, Sheet]) -> str:
    """The picture as HTML in a MyST page, or why there is none."""
    sheet = sheets.get(RUN)
    if sheet is None or not sheet.complete:
        return f"{not_run(sheet) if sheet else 'not run'}: the interactive picture needs the run `{RUN}`."
    run = sheet.page.runs(sheet.results)[0]
    return f"```{{raw}} html\n{html(run)}\n```"


def html(run: PhasesRun) -> str:
    """Of the widest network."""
    width = run.experiment.widths[-1]
    courses = run.of_width(width)
    start = min(range(len(courses)), key=lambda i: abs(courses[i].multiple - START))
    data = {"start": start, "positions": [_position(run, width, course) for course in courses]} | _axes(courses)
    static = figures.course(courses[start])
    said = escape(sentence(run, width, courses[start].multiple))
    name = f"Gradient descent of a network of width {width} at a learning rate that you choose"
    packed = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    return (
        f'<div class="explorer" role="group" aria-label="{escape(name)}">\n'
        f'<div class="explorer-picture"><div class="explorer-static" role="img" aria-label="{escape(static.alt)}">'
        f"{static.inline}</div></div>\n"
        '<p class="explorer-control" hidden><label for="explorer-rate">Learning rate</label> '
        f'<input id="explorer-rate" type="range" min="0" max="{len(courses) - 1}" step="1" value="{start}"> '
        '<output for="explorer-rate"></output></p>\n'
        f'<p class="explorer-sentence" aria-live="polite">{said}</p>\n'
        '<details hidden><summary>The numbers</summary><table class="table"><thead><tr><th scope="col">iteration</th>'
        '<th scope="col">loss</th><th scope="col">in the top eigenspace</th><th scope="col">rest</th>'
        '<th scope="col">‖K‖</th></tr></thead><tbody></tbody></table></details>\n'
        f'<script type="application/json">{packed}</script>\n</div>'
    )


def _position(run: PhasesRun, width: int, course: Course) -> dict[str, Any]:
    h = course.history
    top, rest = h.split(h.tops[-1])
    columns = {"loss": h.loss, "top": top, "rest": rest, "norm": h.kernel_norm}
    return {
        "rate": f"{course.multiple:g} × the critical one",
        "sentence": sentence(run, width, course.multiple),
        "line": _rounded(float(h.kernel_norm[0]) / course.multiple),
    } | {name: [_rounded(value) for value in column[: _SHOWN + 1]] for name, column in columns.items()}


def _axes(courses: list[Course]) -> dict[str, Any]:
    """The same for all positions, so that one sees what moves."""
    ends = [c.history for c in courses if not c.history.diverged]
    losses = np.concatenate([h.loss[: _SHOWN + 1] for h in ends] or [courses[0].history.loss])
    norms = np.concatenate([h.kernel_norm[: _SHOWN + 1] for h in ends] or [courses[0].history.kernel_norm])
    first = float(courses[0].history.loss[0])
    return {
        "iterations": _SHOWN,
        "lossRange": [float(losses.min()) / 3, min(float(losses.max()) * 3, first * _HIGHEST)],
        "normRange": [float(norms.min()) / 2, float(norms.max()) * 2],
        "top": f"L≤{courses[0].history.tops[-1]}",
        "rest": f"L>{courses[0].history.tops[-1]}",
    }


def _rounded(value: float) -> float | None:
    """Four digits; ``None`` for what was not measured or is not finite."""
    return float(f"{value:.4g}") if math.isfinite(value) else None


def batches(sheets: Mapping[str, Sheet]) -> str:
    """The picture by batch size as HTML in a MyST page, or why there is none."""
    sheet = sheets.get(BATCHES)
    if sheet is None or not sheet.complete:
        return f"{not_run(sheet) if sheet else 'not run'}: the interactive picture needs the run `{BATCHES}`."
    return f"```{{raw}} html\n{batches_html(sheet.page.runs(sheet.results)[0])}\n```"


def batches_html(run: BatchRun) -> str:
    """A picture for each batch size of which a training did not diverge."""
    e = run.experiment
    rate, rows, pages = e.learning_rates[0], [], []
    for size in e.batch_sizes:
        compared = undiverged(run.of(rate, size))
        if not compared:
            continue
        name = f"all {size:,} samples" if size == e.n_train else f"batches of {size}"
        cells = [measurement.write_mean(compared) for measurement in (STEPS_ABOVE, performance(e.measure), ALIGNMENT)]
        above, test, aligned = cells
        seeds = f"{len(compared)} seed{'s' * (len(compared) > 1)}"
        said = (
            f"{name.capitalize()}: {above} steps exceed the critical rate of their batch until the best validation. "
            f"The test FVU is then {test}, and the alignment of the AGOP with the true one {aligned} ({seeds})."
        )
        picture = figures_of_batches.learned(run, size)
        drawn = f'<div class="explorer-static" role="img" aria-label="{escape(picture.alt)}">{picture.inline}</div>'
        pages.append(f'<template data-name="{escape(name)}" data-sentence="{escape(said)}">{drawn}</template>')
        rows.append("".join(f"<td>{escape(cell)}</td>" for cell in (name, *cells)))
        if len(pages) == 1:
            first, first_said = drawn, said
    if not pages:
        return "<p>All trainings diverge.</p>"
    heads = "".join(f'<th scope="col">{h}</th>' for h in ("batch size", "steps above", "test FVU", "alignment"))
    return (
        '<div class="explorer explorer-pages" role="group" aria-label="SGD with a batch size that you choose">\n'
        f'<div class="explorer-picture">{first}</div>\n'
        '<p class="explorer-control" hidden><label for="explorer-batch">Batch size</label> '
        f'<input id="explorer-batch" type="range" min="0" max="{len(pages) - 1}" step="1" value="0"> '
        '<output for="explorer-batch"></output></p>\n'
        f'<p class="explorer-sentence" aria-live="polite">{escape(first_said)}</p>\n'
        f'<details><summary>The numbers</summary><table class="table"><thead><tr>{heads}</tr></thead><tbody>'
        f"{''.join(f'<tr>{row}</tr>' for row in rows)}</tbody></table></details>\n{''.join(pages)}\n</div>"
    )
