"""Clients with minds of their own, processes that are killed, wrong clocks, lost answers: all at once."""
