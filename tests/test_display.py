import math

import matplotlib as mpl
import numpy as np
import pytest
from catapults.display import MIME, Figure, Text, number, table, with_math
from catapults.figures.base import canvas


@pytest.mark.parametrize(
    "value, text",
    [(0.0, "0"), (1.0, "1"), (3.14159, "3.14"), (-28.84, "-28.8"), (0.00123, "0.00123"), (1e-5, "1e-05"),
     (1234.0, "1,230"), (12345.6, "12,300"), (123456.0, "1.23e+05"), (math.inf, "inf"), (math.nan, "nan")],
)  # fmt: skip
def test_numbers(value, text):
    assert number(value) == text


def test_a_bar_in_a_cell_does_not_end_it():
    assert table(("a", "b"), [("|x|", "2")]).splitlines() == ["| a | b |", "| --- | --- |", r"| \|x\| | 2 |"]


def test_objects_show_themselves_and_carry_their_data():
    figure = Figure("<svg/>", "name", "a caption", "an alternative")._repr_mimebundle_()
    assert figure["image/svg+xml"] == "<svg/>" and figure["text/plain"] == "an alternative"
    assert figure[MIME] == {"kind": "figure", "name": "name", "caption": "a caption", "alt": "an alternative"}
    assert Text("**bold**", {"kind": "x"})._repr_mimebundle_()[MIME] == {"kind": "x"}
    assert MIME not in Text("plain")._repr_mimebundle_()


def test_figures_take_nothing_from_the_readers_own_style():
    """A matplotlibrc that asks for LaTeX, which is not here, or for colours."""
    mine = {"text.usetex": True, "axes.facecolor": "red", "font.size": 30, "lines.linewidth": 9}

    def drawn():
        with canvas("x") as (figure, save):
            axes = figure.subplots()
            axes.plot([1, 2], [1, 2], label="$x$")
            axes.legend()
        return save("A caption.", "An alternative text.")

    with mpl.rc_context(mine):
        changed = drawn()
    assert changed.svg == drawn().svg


def test_numbers_of_any_kind():
    assert number(np.float32(0.1)) == "0.1" and number(3) == "3" and number(np.float64(2e5)) == "2e+05"


def test_symbols_are_mathematics_outside_of_code_and_mathematics():
    text = "η > η_crit(X_batch) and η_crit, L>5 and L≤1, not `η_crit`, nor $η_crit$"
    assert with_math(text) == (
        r"η > $\eta_{\mathrm{crit}}(X_{\mathrm{batch}})$ and $\eta_{\mathrm{crit}}$, $\mathcal{L}_{>5}$ and "
        r"$\mathcal{L}_{\le 1}$, not `η_crit`, nor $η_crit$"
    )
    assert Text("η*_whole")._repr_mimebundle_()["text/plain"] == "η*_whole"
