"""Gates: thresholds that turn a metric into a failed test."""

from pytest_tokenbudget.gates.conformance import ConformanceGates
from pytest_tokenbudget.gates.judging import Gates
from pytest_tokenbudget.gates.table import Gate

__all__ = ["ConformanceGates", "Gate", "Gates"]
