import nbformat
import pytest
from book_project import ROOT
from catapults.experiments.agop_sgd import BatchSizes
from catapults.experiments.gd_catapult import GDCatapult
from catapults.experiments.match_rates import MatchRates
from catapults.experiments.multiple_catapults import MultipleCatapults
from catapults.paper import quotes

CNN = {"architecture": "cnn", "width": 512, "image_size": 32}


def page(kind, chapter, **changed):
    """A page with the defaults of its notebook."""
    cells = nbformat.read(ROOT / "chapters" / f"{chapter}.ipynb", as_version=4).cells
    (cell,) = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    values = {}
    exec("from typing import Optional, Union\n" + cell.source, values)
    return kind.from_namespace(values | changed)


@pytest.mark.parametrize(
    "changed, where, critical, rate",
    [
        ({}, "Fig. 3a", 3.6, 6),
        (CNN, "Fig. 3b", 4.5, 8),
        ({"dataset": "svhn-2"}, "Fig. 14a", 3.4, 6),
        (CNN | {"dataset": "svhn-2"}, "Fig. 14c", 1.6, 3),
        ({"dataset": "rank-2"}, "Fig. 15a", 1.9, 5),
        ({"architecture": "wrn", "depth": 10, "width": 10, "image_size": 32}, "Fig. 15c", 1.5, 3),
        ({"dataset": "cifar-10"}, "Fig. 16a", 34, 100),
        (CNN | {"dataset": "cifar-10"}, "Fig. 16c", 16, 80),
    ],
)
def test_critical_rates_at_the_papers_settings(changed, where, critical, rate):
    made = page(GDCatapult, "gd_catapults", **changed)
    quote = quotes.critical_rate(made)
    assert (quote.where, quote.critical_learning_rate, quote.learning_rate) == (where, critical, rate)
    assert quote.differences(made) == {} and quote.elsewhere(made) == ""


def test_what_differs_is_named():
    made = page(GDCatapult, "gd_catapults", **CNN | {"width": 64, "bias": True})
    quote = quotes.critical_rate(made)
    assert (
        quote.where == "Fig. 3b"
        and quote.elsewhere(made) == "width = 512 there, 64 here, bias = False there, True here"
    )


@pytest.mark.parametrize(
    "changed", [{"dataset": "full-rank"}, {"dataset": "svhn-2", "architecture": "vit", "width": 8}]
)
def test_nothing_is_quoted_for_another_task_or_network(changed):
    assert quotes.critical_rate(page(GDCatapult, "gd_catapults", **changed)) is None


def test_final_rates():
    fcn, cnn = (quotes.final_rate(page(MultipleCatapults, "multiple_catapults", **changed)) for changed in ({}, CNN))
    assert (fcn.final_learning_rate, fcn.critical_learning_rate, fcn.where) == (60, 3.6, "Fig. 18a")
    assert (cnn.final_learning_rate, cnn.critical_learning_rate, cnn.where) == (40, 4.5, "Fig. 18b")
    assert fcn.multiple == pytest.approx(60 / 3.6)
    assert quotes.final_rate(page(MultipleCatapults, "multiple_catapults", dataset="svhn-2")) is None


def test_table_2():
    found = quotes.match_rates(page(MatchRates, "match_rates"))
    values = {name: (q.mean, q.deviation) for name, q in found.items()}
    assert values == {"shallow": (97.32, 0.45), "fcn": (96.17, 1.46), "cnn": (94.67, 3.27)}
    assert quotes.match_rates(page(MatchRates, "match_rates", dataset="svhn-2")) == {}
    smaller = page(MatchRates, "match_rates", batch_size=8)
    assert quotes.match_rates(smaller)["fcn"].elsewhere(smaller.page(smaller.fcn, 0)) == "batch_size = 32 there, 8 here"


def test_table_1():
    made = page(BatchSizes, "agop_sgd")
    found = quotes.table_1(made)
    values = {size: (q.alignment, q.test_loss) for size, q in found.items()}
    assert values == {5: (0.95, 0.42), 10: (0.89, 0.59), 50: (0.84, 0.71), 2000: (0.81, 0.74)}
    assert found[5].differences(made) == {} and found[5].where == "Table 1"
    small = page(BatchSizes, "agop_sgd", n_train=64, batch_sizes=[5, 64])
    assert quotes.table_1(small)[5].elsewhere(small) == "n_train = 2000 there, 64 here"
    for changed in ({"learning_rates": ["0.5 eta_crit", "0.025 eta_crit"]}, {"dataset": "rank-3"}):
        assert quotes.table_1(page(BatchSizes, "agop_sgd", **changed)) == {}
