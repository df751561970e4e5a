"""How long a test waits for what must come, before it calls it lost."""

PATIENCE = 200
"""Seconds. Below pytest's own limit of 300, and far above what three suites on two cores have ever needed."""
