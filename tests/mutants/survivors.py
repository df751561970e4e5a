"""Mutants that live and may: nobody can see a difference. A sentence each; one that is killed now has to leave."""

ALLOWED: dict[tuple[str, str, str], str] = {}
"""The reason, by module, the line as it is, and as the mutant has it."""
