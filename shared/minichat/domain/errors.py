"""Everything that can be refused, one class each; what administrators alone meet is in `domain.access_errors`.

    ChatError
    ├── InvalidRequest            invalid_request        400  (errors: which field, why)
    │   ├── InvalidCursor         invalid_cursor         400
    │   └── InvalidAttachment     invalid_attachment     400
    ├── InvalidTurnState          invalid_turn_state     400
    ├── InvalidModel              invalid_model          400
    ├── WebSearchDisabled         web_search_disabled    400
    ├── ImagesDisabled            images_disabled        400
    ├── TooManyImages             too_many_images        400
    ├── InvalidReactionTarget     invalid_reaction_target 400
    ├── InputTooLong              input_too_long         400
    ├── Unauthenticated           unauthenticated        401
    ├── Forbidden                 forbidden              403
    ├── FeatureNotLicensed        feature_not_licensed   403
    ├── BeingErased               being_erased           403  (domain.erasure)
    ├── ChatNotFound              chat_not_found         404
    ├── TurnNotFound              turn_not_found         404
    ├── ModelNotFound             model_not_found        404
    ├── AttachmentNotFound        attachment_not_found   404
    ├── MessageNotFound           message_not_found      404
    ├── ExportNotFound            export_not_found       404  (domain.export)
    ├── GenerationInProgress      generation_in_progress 409
    │   └── ChatMoved             the same, after a lost race
    ├── RequestIdConflict         request_id_conflict    409
    ├── NotLatestTurn             not_latest_turn        409
    ├── IdempotencyKeyConflict    idempotency_key_conflict 409
    ├── AttachmentLocked          attachment_locked      409
    ├── ExportRunning             export_running         409  (domain.export)
    ├── FileTooLarge              file_too_large         413
    ├── UnsupportedFileType       unsupported_file_type  415
    ├── UnsupportedMedia          unsupported_media      415
    ├── RequestIdReused           request_id_reused      422
    ├── ContextBudgetExceeded     context_budget_exceeded 422
    ├── QuotaExceeded             quota_exceeded         429
    │   └── CreditsTaken          the same, after a lost race
    ├── RateLimited               rate_limited           429  (scope, whose, limit)
    │   └── SendsMoved            the same, after a lost race
    └── ServiceUnavailable        service_unavailable    503

The status codes live in `minichat.http.problems`: errors also end streams and batch records, where no status exists.
A message is written for the caller: it names what was wrong, and nothing of our internals.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from minichat.domain.identity import Caller

TokenFault = Literal[
    "missing",
    "malformed",
    "algorithm",
    "key",
    "signature",
    "issuer",
    "audience",
    "expired",
    "not_yet_valid",
    "claim",
    "revoked",
]
"""Why a bearer token is not accepted: the closed set of words that log lines use."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One reason why one input does not validate."""

    field: str
    message: str
    code: str = "invalid"


class ChatError(Exception):
    """A refusal that the caller is told about; `code` is its stable machine word."""

    code: ClassVar[str]
    detail: ClassVar[str]

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail or self.detail)


class InvalidRequest(ChatError):
    """Body, path or query does not validate, or is nested too deep to be read; `errors` names the fields."""

    code = "invalid_request"
    detail = "The request is not valid."

    def __init__(self, *errors: FieldError, detail: str | None = None) -> None:
        self.errors = errors
        super().__init__(detail or (errors[0].message if len(errors) == 1 else None))


class InvalidCursor(InvalidRequest):
    """The cursor was altered, or belongs to another list, order, filter or caller."""

    code = "invalid_cursor"
    detail = "The cursor does not belong to this query."


class InvalidAttachment(InvalidRequest):
    """An attachment that is unknown, another's, another chat's, deleted (`not_found`) or not ready (`not_ready`);
    `errors` names `attachment_ids` and each id."""

    code = "invalid_attachment"
    detail = "An attachment cannot be used."


class InvalidTurnState(ChatError):
    """Mutation of a turn that is running."""

    code = "invalid_turn_state"
    detail = "The turn is still running."


class InvalidModel(ChatError):
    """A chat asks for a model that is unknown, disabled or not available yet."""

    code = "invalid_model"
    detail = "The model is not available."


class WebSearchDisabled(ChatError):
    """Web search is switched off by the policy, and the message asks for it."""

    code = "web_search_disabled"
    detail = "Web search is currently disabled."


class ImagesDisabled(ChatError):
    """Images are switched off by the policy, and the message has some."""

    code = "images_disabled"
    detail = "Images are currently disabled."


class TooManyImages(ChatError):
    """More images than one message may have (`attachments.max_images_per_message`)."""

    code = "too_many_images"
    detail = "The message has too many images."


class InvalidReactionTarget(ChatError):
    """A reaction to a message that is not the assistant's."""

    code = "invalid_reaction_target"
    detail = "Only an assistant's message can have a reaction."


class InputTooLong(ChatError):
    """The message alone exceeds the model's input, 3 MB, or what a response can carry."""

    code = "input_too_long"
    detail = "The message is too long for the model."


class Unauthenticated(ChatError):
    """No token, or one that does not verify.

    `reason` is for the log; the caller is not told why, but for an API key of theirs that was revoked or has expired.
    """

    code = "unauthenticated"
    detail = "A valid bearer token is required."

    def __init__(self, reason: TokenFault, detail: str | None = None) -> None:
        self.reason = reason
        super().__init__(detail)


class Forbidden(ChatError):
    """The caller may not do this: the turn or the attachment is another user's, or no policy permits the action.

    `action` is what was refused; `policies` are the ids of those that refused it, for the audit only.
    """

    code = "forbidden"
    detail = "You may not do this."

    def __init__(self, action: str | None = None, policies: tuple[str, ...] = ()) -> None:
        self.action = action
        self.policies = policies
        super().__init__()


class FeatureNotLicensed(ChatError):
    """The tenant lacks the feature.

    `caller` is who asked; the token is good otherwise.
    """

    code = "feature_not_licensed"
    detail = "The chat feature is not licensed for this tenant."

    def __init__(self, caller: "Caller | None" = None) -> None:
        self.caller = caller
        super().__init__()


class ChatNotFound(ChatError):
    """The chat is another tenant's, not for the caller to see, deleted or unknown: the answer does not tell which."""

    code = "chat_not_found"
    detail = "The chat was not found."


class TurnNotFound(ChatError):
    """The chat has no such turn."""

    code = "turn_not_found"
    detail = "The turn was not found."


class ModelNotFound(ChatError):
    """The catalog has no such enabled model."""

    code = "model_not_found"
    detail = "The model was not found."


class MessageNotFound(ChatError):
    """The chat has no such message, or its turn was deleted."""

    code = "message_not_found"
    detail = "The message was not found."


class AttachmentNotFound(ChatError):
    """The chat has no such attachment, or it was deleted."""

    code = "attachment_not_found"
    detail = "The attachment was not found."


class AttachmentLocked(ChatError):
    """A visible message was sent with the attachment: it stays as long as that does."""

    code = "attachment_locked"
    detail = "The attachment belongs to a message and cannot be deleted."


class FileTooLarge(ChatError):
    """The file is above the limit of its kind, or of this route."""

    code = "file_too_large"
    detail = "The file is too large."


class UnsupportedFileType(ChatError):
    """A type that is not accepted, or a file that is not of its type."""

    code = "unsupported_file_type"
    detail = "Files of this type are not accepted."


class UnsupportedMedia(ChatError):
    """The model cannot see the message's images."""

    code = "unsupported_media"
    detail = "The model that would answer cannot see the images of the message."


class GenerationInProgress(ChatError):
    """Another turn of the chat is running; `stream_url` is where it can be joined.

    `request_id` names it when it is known.
    """

    code = "generation_in_progress"
    detail = "Another turn of this chat is running."

    def __init__(self, request_id: str | None = None) -> None:
        self.request_id = request_id
        super().__init__()


class ChatMoved(GenerationInProgress):
    """The chat's summary or its latest messages changed between the read and the transaction that relied on it; read
    again."""


class RequestIdConflict(ChatError):
    """The `request_id` belongs to a turn that is not replayable; `turn_state` is its state, `stream_url` where it can
    be read (not for a deleted one).

    With `request_id` the turn's stream can be joined.
    """

    code = "request_id_conflict"
    detail = "This request_id was already used by another turn of the chat."

    def __init__(self, turn_state: str, request_id: str | None = None) -> None:
        self.turn_state = turn_state
        self.request_id = request_id
        super().__init__()


class NotLatestTurn(ChatError):
    """Mutation of a turn that is not the latest, or was deleted or replaced."""

    code = "not_latest_turn"
    detail = "Only the latest turn of the chat can be changed."


class IdempotencyKeyConflict(ChatError):
    """The `Idempotency-Key` was used with another body within 24 hours."""

    code = "idempotency_key_conflict"
    detail = "This Idempotency-Key was already used with another request."


class RequestIdReused(ChatError):
    """The `request_id` is a completed turn's, with other content or attachments."""

    code = "request_id_reused"
    detail = "This request_id belongs to a completed turn with other content or attachments."


class ContextBudgetExceeded(ChatError):
    """Instructions and message do not fit the model's window."""

    code = "context_budget_exceeded"
    detail = "The message and the instructions do not fit the model's context window."


@dataclass(frozen=True, slots=True)
class UsedUp:
    """Which limit is used up: its scope; of credits also the bucket; and the period, if it has one.

    `next_reset` is when it begins anew, in `retry_after_seconds`; both are absent where waiting does not help: the
    request exceeds the whole limit, or the limit has no period.
    """

    scope: str = "tokens"
    tier: str | None = None
    period: str | None = None
    next_reset: datetime | None = None
    retry_after_seconds: int | None = None


class QuotaExceeded(ChatError):
    """A limit is used up: of `quota_scope` `tokens`, `web_search`, `code_interpreter`, `file_search`, `image_inputs` or
    `uploads`."""

    code = "quota_exceeded"
    detail = "The quota is used up."

    def __init__(self, limit: UsedUp = UsedUp(), detail: str | None = None) -> None:
        self.limit = limit
        self.retry_after_seconds = limit.retry_after_seconds
        super().__init__(detail)


class CreditsTaken(QuotaExceeded):
    """Other turns took the credits, or a number of the day's, between the read and the transaction."""


class RateLimited(ChatError):
    """Too many at once, or in too short a time: `scope` is the limit's name, `limit` its number, and `whose` says
    whether it is the user's or that of all users of the tenant. API Gateway's own refusal has none of these."""

    code = "rate_limited"
    detail = "Too many requests; try again later."

    def __init__(self, scope: str, limit: int, retry_after_seconds: int, whose: str = "user") -> None:
        self.scope = scope
        self.limit = limit
        self.retry_after_seconds = retry_after_seconds
        self.whose = whose
        super().__init__(f"The limit {scope} of the {whose} is {limit}; try again later.")


class SendsMoved(RateLimited):
    """Another send of the user came between the read and the transaction, and there may be room for both: read
    again."""


class ServiceUnavailable(ChatError):
    """The store does not answer now, or not within the function's time; the request may have succeeded all the same, so
    repeat it unchanged."""

    code = "service_unavailable"
    detail = "The service is temporarily unavailable; try again shortly."

    def __init__(self, retry_after_seconds: int = 1) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__()
