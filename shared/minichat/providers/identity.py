"""What a provider learns about the caller: irreversible hashes, and the trace.

Providers ask for the user behind a call, to find abuse, and show metadata in their own logs. Both are keyed hashes (128
bits of HMAC with SHA-256): a user's hash never changes, and a list of our ids does not reveal the user. They fit
everywhere: OpenAI takes 64 characters as a user, and 16 pairs of 64 and 512 as metadata; Bedrock's values take 256 from
a small set; Anthropic wants a hash, and nothing that names anybody (context-attachments-providers 4).
"""

import hmac
from dataclasses import dataclass, replace

from minichat import trace_context
from minichat.domain.identity import ChatId, TenantId, UserId
from minichat.domain.names import in_key
from minichat.domain.turn import Turn
from minichat.providers.prompt import Prompt

_PURPOSE = b"minichat provider identity"
"""Separates this key from other uses of its secret."""
HASH_CHARACTERS = 32


@dataclass(frozen=True, slots=True)
class Asker:
    """On whose behalf a model is called, in which chat and trace, and why: `chat`, or the type of a system task."""

    tenant_id: TenantId
    user_id: UserId
    chat_id: ChatId
    trace_id: str
    request_type: str = "chat"

    @classmethod
    def of_turn(cls, turn: Turn, trace_id: str) -> "Asker":
        """The asker of a turn."""
        return cls(turn.tenant_id, turn.requester_user_id, turn.chat_id, trace_id)


def told(prompt: Prompt, asker: Asker, secret: str) -> Prompt:
    """The prompt with hashes of its user, tenant and chat, and the trace of its call.

    Without a secret there are no hashes: anybody who knows an id could compute them.
    """
    if asker.trace_id:
        # Marked as sampled: our log has a line for it.
        prompt = replace(prompt, traceparent=trace_context.traceparent(asker.trace_id))
    if not secret:
        return prompt
    tenant = in_key(asker.tenant_id)  # without spaces, as the user: no two users have one text
    said = {"user": in_key(asker.user_id), "tenant": tenant, "chat": asker.chat_id}
    key = hmac.digest(secret.encode(), _PURPOSE, "sha256")
    hashes = {
        kind: hmac.digest(key, f"{kind} {tenant} {value}".encode(), "sha256").hex()[:HASH_CHARACTERS]
        for kind, value in said.items()
    }
    trace = {"trace_id": asker.trace_id} if asker.trace_id else {}
    return replace(prompt, user=hashes["user"], metadata={**hashes, "request_type": asker.request_type, **trace})
