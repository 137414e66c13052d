"""Gates: thresholds that turn a metric into a failed test."""

from pytest_tokenbudget.gates.judging import Gates
from pytest_tokenbudget.gates.table import Gate
from pytest_tokenbudget.gates.verdict_gates import VerdictGates

__all__ = ["Gate", "Gates", "VerdictGates"]
