"""What a provider is told of who asks: hashes that nobody can turn back, and the trace.

Providers ask for the user behind a call, to find abuse, and show metadata in their own logs. Both are keyed hashes (128
bits of HMAC with SHA-256): the same user is the same word for ever, and no list of our ids tells who. They fit
everywhere: OpenAI takes 64 characters as a user, 16 pairs of 64 and 512 as metadata; Bedrock's values have 256 of few
kinds; Anthropic wants a hash, and nothing that names anybody (context-attachments-providers 4).
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass, replace

from minichat.domain.identity import ChatId, TenantId, UserId
from minichat.domain.turn import Turn
from minichat.providers.prompt import Prompt

_PURPOSE = b"minichat provider identity"
"""Keeps the key apart from what else its secret is for."""
HASH_CHARACTERS = 32


@dataclass(frozen=True, slots=True)
class Asker:
    """For whom a model is called, in which chat and trace, and what for: `chat`, or the type of a system's task."""

    tenant_id: TenantId
    user_id: UserId
    chat_id: ChatId
    trace_id: str
    request_type: str = "chat"

    @classmethod
    def of_turn(cls, turn: Turn, trace_id: str) -> "Asker":
        """Who asks with a turn."""
        return cls(turn.tenant_id, turn.requester_user_id, turn.chat_id, trace_id)


def told(prompt: Prompt, asker: Asker, secret: str) -> Prompt:
    """The prompt with hashes of its user, tenant and chat, and the trace that its call belongs to.

    Without a secret there are no hashes: anybody who knows an id could make the same.
    """
    if asker.trace_id:
        # Sampled: there is a log line of it here.
        prompt = replace(prompt, traceparent=f"00-{asker.trace_id}-{secrets.token_hex(8)}-01")
    if not secret:
        return prompt
    said = {"user": asker.user_id, "tenant": asker.tenant_id, "chat": asker.chat_id}
    key = hmac.digest(secret.encode(), _PURPOSE, "sha256")
    hashes = {
        kind: hmac.new(key, f"{kind} {asker.tenant_id} {value}".encode(), hashlib.sha256).hexdigest()[:HASH_CHARACTERS]
        for kind, value in said.items()
    }
    trace = {"trace_id": asker.trace_id} if asker.trace_id else {}
    return replace(prompt, user=hashes["user"], metadata={**hashes, "request_type": asker.request_type, **trace})
