"""The page on networks that are not the paper's, which trains them itself: it is an example of how to."""

from collections.abc import Mapping

from .base import Experiment, Page, Positive, PositiveInt, Seed


class OwnNetwork(Page):
    """A page without experiments. ``width``, ``multiples`` and ``seeds`` are those of its fully connected networks."""

    width: PositiveInt
    multiples: list[Positive]
    seeds: PositiveInt
    seed: Seed

    def of_each_seed(self) -> "list[OwnNetwork]":
        return [self]

    def trainings(self) -> Mapping[str, Experiment]:
        return {}
