"""The page on the monitor, which trains three networks itself: it is an example of how to."""

from collections.abc import Mapping

from .base import Experiment, Page, Positive, PositiveInt, Seed


class YourTraining(Page):
    """A page without experiments. ``every``: steps between measurements; ``c``: of the limit; ``steps``: to train."""

    every: PositiveInt
    c: Positive
    steps: PositiveInt
    seed: Seed

    def of_each_seed(self) -> "list[YourTraining]":
        return [self]

    def trainings(self) -> Mapping[str, Experiment]:
        return {}
