"""What is known of the probes before they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_tokenbudget.dry_run.parts import Book


def probes_note(book: Book) -> str:
    """How many outputs the probes are at most, in a sentence."""
    from pytest_tokenbudget.models.choice import engine_of
    from pytest_tokenbudget.studies.conformance.budget_methods import WAYS, methods_for
    from pytest_tokenbudget.studies.conformance.probe_context import CAP, PROMPTS, PUZZLES

    spec = book.spec
    facts = spec.endpoint.facts if spec.endpoint is not None else None
    engine = facts.kind if facts is not None else engine_of(book.settings, spec)
    ways = [WAYS[name] for name in methods_for(engine, spec)]
    # Prompts are chosen once; each way asks them without a budget twice, and with each budget.
    outputs = PROMPTS + 2 + len(PUZZLES) + PROMPTS * sum(2 + len(way.budgets) for way in ways)
    cap = min(CAP, spec.context or CAP)
    return (
        "conformance: its probes are generated anew in every run, and are in none of these "
        f"numbers. Those of thinking budgets are at most {outputs:,} outputs of at most {cap:,} "
        "tokens; those of limits are shorter"
    )
