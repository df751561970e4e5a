"""How many faults the tests find that were put into the rules and the edge on purpose (docs/decisions/0014)."""
