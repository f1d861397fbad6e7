import subprocess
import sys
from dataclasses import replace

import nbformat
import pytest
import torch
from book_project import ROOT
from catapults.compute import Results, record
from catapults.display import MIME
from catapults.experiments.gd_catapult import GDCatapult
from catapults.experiments.own_network import OwnNetwork
from catapults.paper.descriptions import cost
from catapults.paper.provenance import PRESET, provenance
from histories import MADE, history, made, measured
from test_gd_catapult import SMALL

CHAPTERS = ("gd_catapults", "multiple_catapults", "sgd_spikes", "match_rates", "performance")
PAGE = GDCatapult.create(**SMALL | {"seeds": 3})


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv(record.FOLDER, str(tmp_path / "record"))
    return made((experiment, measured(history([1.0, 0.5]))) for experiment in PAGE.experiments())


def with_outcomes(results, *changed):
    """The results with fields of the first outcomes changed."""
    outcomes = dict(results.outcomes)
    for (key, outcome), fields in zip(results.outcomes.items(), changed, strict=False):
        outcomes[key] = replace(outcome, **fields)
    return Results(outcomes)


def facts(results):
    return provenance(PAGE, results)._repr_mimebundle_()[MIME]


def test_results_alike_are_summed_up(results):
    found = facts(results)
    assert (
        found["results"] == "3: all computed earlier on this machine"
        and found["which took"] == "4.5 s of one core in all"
    )
    assert (found["computed"], found["on"]) == ("2026-11-20 12:00 UTC", "cpu (1 thread, x86_64)")
    assert found["by the code at commit"] == "abc1234" and found["changed since"].startswith("nothing")
    assert found["with"] == "catapults 0.1.0; Python 3.11.7; torch 2.13.0; numpy 2.4.6; scipy 1.17.1"


def test_what_differs_is_counted(results):
    gpu = MADE | {"device": "cuda:0 (H100)", "date": "2026-11-21 12:00 UTC", "commit": "def5678"}
    gpu["versions"] = MADE["versions"] | {"torch": "2.14.0"}
    found = facts(with_outcomes(results, {"made": gpu}, {"computed": True}))
    assert found["results"] == "3: 2 computed earlier on this machine, 1 computed for this page"
    assert found["computed"] == "between 2026-11-20 12:00 UTC and 2026-11-21 12:00 UTC"
    assert found["on"] == "cpu (1 thread, x86_64) (2 of them), cuda:0 (H100) (1 of them)"
    assert found["by the code at commit"] == "abc1234 (2 of them), def5678 (1 of them)"
    assert "torch 2.13.0 (2 of them), 2.14.0 (1 of them); numpy 2.4.6" in found["with"]


def test_what_is_in_the_record_is_told_from_what_is_stored(results):
    first, *_ = results.outcomes.values()
    record.take([(first.experiment, first.result, first.made)])
    assert facts(results)["results"] == "3: 1 from the record, 2 computed earlier on this machine"
    newer = with_outcomes(results, {"made": MADE | {"date": "2026-11-25 12:00 UTC"}})
    assert facts(newer)["results"] == "3: all computed earlier on this machine"  # and not taken over yet
    assert cost([PAGE], results) == (
        "The 3 trainings took 4.5 s of one core (1 from the record, 2 computed earlier on this machine)."
    )


def test_a_cost_of_what_was_computed_for_the_page_says_no_more(results):
    now = with_outcomes(results, *[{"computed": True}] * 3)
    assert cost([PAGE], now) == "The 3 trainings took 4.5 s of one core."


def test_a_page_without_experiments_says_so():
    page = OwnNetwork.create(width=8, multiples=[2.0], seeds=1, seed=0)
    found = provenance(page)._repr_mimebundle_()[MIME]
    assert found["results"].startswith("none of the record") and f"torch {torch.__version__}" in found["with"]
    assert found.keys() >= {"computed", "on", "changed since", "this page"}


def test_what_has_changed_since_is_named(results):
    some = with_outcomes(results, {"changed": ("training/loop.py", "agop.py")}, {"changed": ("agop.py",)})
    said = "`agop.py`, `training/loop.py`, through which the trainings of 2 of the 3 results ran"
    assert facts(some)["changed since"] == said


def test_when_and_in_which_preset_the_page_was_executed(results, monkeypatch):
    monkeypatch.delenv(PRESET, raising=False)
    assert "by itself, without a preset" in facts(results)["this page"]
    monkeypatch.setenv(PRESET, "book")
    assert "in the preset book, by catapults" in facts(results)["this page"]


def test_what_the_notebooks_import_brings_no_torch():
    """Nor Dask, pyplot or seaborn: in a fresh process."""
    sources = []
    for chapter in CHAPTERS:
        cells = nbformat.read(ROOT / "chapters" / f"{chapter}.ipynb", as_version=4).cells
        (imports,) = [cell.source for cell in cells if "hide-input" in cell.metadata.get("tags", [])]
        sources.append(imports)
    heavy = ("torch", "dask", "distributed", "seaborn", "matplotlib.pyplot")
    code = "\n".join([*sources, "import sys", f"print([name for name in {heavy} if name in sys.modules])"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
