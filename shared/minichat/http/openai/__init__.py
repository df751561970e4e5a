"""The door for OpenAI's own clients: its Responses and Chat Completions over the product's turns (docs/openai.md)."""

PREFIX = "/openai/v1"
"""Below the prefix of the deployment."""
