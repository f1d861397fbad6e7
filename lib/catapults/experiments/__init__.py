"""Descriptions of the book's experiments: typed, validated before any work starts, and what running one gives.

A module for each experiment, to be imported by its name; here is what they share.
"""

from .base import Experiment, NetworkExperiment, ParameterError

__all__ = ["Experiment", "NetworkExperiment", "ParameterError"]
