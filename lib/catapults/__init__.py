"""Catapults in SGD: the library behind the executable companion to Zhu, Liu, Radhakrishnan and Belkin (2024).

Import the module you need: ``from catapults import data, models, tangent, training``.
"""

__version__ = "0.1.0"
