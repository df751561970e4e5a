"""Mini Chat: the backend of a multi-tenant AI chat, as functions on DynamoDB."""

__version__ = "0.1.0"
