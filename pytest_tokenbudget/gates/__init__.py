"""Gates: thresholds that turn a metric into a failed test."""

from pytest_tokenbudget.gates.judging import Gates, VerdictGates
from pytest_tokenbudget.gates.table import Gate

__all__ = ["Gate", "Gates", "VerdictGates"]
