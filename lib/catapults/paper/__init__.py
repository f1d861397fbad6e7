"""What the paper states about an experiment, each statement checked against the run with a stated tolerance.

A module for each experiment, to be imported by its name; here is what they share.
"""

from .claims import GIVEN, NOT_COMPARED, NOT_REPRODUCED, REPRODUCED, VERDICTS, Claim, Claims

__all__ = ["GIVEN", "NOT_COMPARED", "NOT_REPRODUCED", "REPRODUCED", "VERDICTS", "Claim", "Claims"]
