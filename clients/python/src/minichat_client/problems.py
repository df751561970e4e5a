"""One exception per code of a refusal.

Made from the code by `make docs`: change it there.
"""

from minichat_client.errors import Refused


class ApiKeyNotFound(Refused):
    """404: The tenant has no API key of that id."""

    code = "api_key_not_found"


class AttachmentLocked(Refused):
    """409: A visible message was sent with the attachment: it stays as long as that does."""

    code = "attachment_locked"


class AttachmentNotFound(Refused):
    """404: The chat has no such attachment, or it was deleted."""

    code = "attachment_not_found"


class AuthorizationConflict(Refused):
    """409: Another version of the tenant's own policies is in force than the one that was to be replaced."""

    code = "authorization_conflict"


class BeingErased(Refused):
    """403: The user, or the whole tenant, is being erased: nothing new begins, and what there was disappears."""

    code = "being_erased"


class ChatNotFound(Refused):
    """404: The chat is another tenant's, not for the caller to see, deleted or unknown: the answer does
    not tell which.
    """

    code = "chat_not_found"


class ContextBudgetExceeded(Refused):
    """422: Instructions and message do not fit the model's window."""

    code = "context_budget_exceeded"


class ErasureNotFound(Refused):
    """404: The tenant has no erasure of that id."""

    code = "erasure_not_found"


class ErasureRunning(Refused):
    """409: The same user, or the tenant, is being erased already."""

    code = "erasure_running"


class ExportNotFound(Refused):
    """404: There is no such export, or not for this caller, or its time is over."""

    code = "export_not_found"


class ExportRunning(Refused):
    """409: The caller's last export is still being made."""

    code = "export_running"


class FeatureNotLicensed(Refused):
    """403: The tenant lacks the feature."""

    code = "feature_not_licensed"


class FileTooLarge(Refused):
    """413: The file is above the limit of its kind, or of this route."""

    code = "file_too_large"


class Forbidden(Refused):
    """403: The caller may not do this: the turn or the attachment is another user's, or no policy
    permits the action.
    """

    code = "forbidden"


class GenerationInProgress(Refused):
    """409: Another turn of the chat is running; `stream_url` is where it can be joined."""

    code = "generation_in_progress"


class GrantNotFound(Refused):
    """404: The tenant has no such grant: it was revoked, or ended some time ago."""

    code = "grant_not_found"


class IdempotencyKeyConflict(Refused):
    """409: The `Idempotency-Key` was used with another body within 24 hours."""

    code = "idempotency_key_conflict"


class ImagesDisabled(Refused):
    """400: Images are switched off by the policy, and the message has some."""

    code = "images_disabled"


class InputTooLong(Refused):
    """400: The message alone exceeds the model's input, 3 MB, or what a response can carry."""

    code = "input_too_long"


class InternalError(Refused):
    """500: A failure of ours; `trace_id` finds it."""

    code = "internal_error"


class InvalidAttachment(Refused):
    """400: An attachment that is unknown, another's, another chat's, deleted (`not_found`) or not ready
    (`not_ready`); `errors` names `attachment_ids` and each id.
    """

    code = "invalid_attachment"


class InvalidAuthorization(Refused):
    """400: A tenant's own policies do not parse, name what there is not, or would lock out its
    administrators; `errors` names `policies` and each reason.
    """

    code = "invalid_authorization"


class InvalidCursor(Refused):
    """400: The cursor was altered, or belongs to another list, order, filter or caller."""

    code = "invalid_cursor"


class InvalidModel(Refused):
    """400: A chat asks for a model that is unknown, disabled or not available yet."""

    code = "invalid_model"


class InvalidReactionTarget(Refused):
    """400: A reaction to a message that is not the assistant's."""

    code = "invalid_reaction_target"


class InvalidRequest(Refused):
    """400: Body, path or query does not validate, or is nested too deep to be read; `errors` names the fields."""

    code = "invalid_request"


class InvalidTurnState(Refused):
    """400: Mutation of a turn that is running."""

    code = "invalid_turn_state"


class MessageNotFound(Refused):
    """404: The chat has no such message, or its turn was deleted."""

    code = "message_not_found"


class MethodNotAllowed(Refused):
    """405: The path has no such method; `Allow` names those that it has."""

    code = "method_not_allowed"


class ModelNotFound(Refused):
    """404: The catalog has no such enabled model."""

    code = "model_not_found"


class NotFound(Refused):
    """404: There is no such path."""

    code = "not_found"


class NotLatestTurn(Refused):
    """409: Mutation of a turn that is not the latest, or was deleted or replaced."""

    code = "not_latest_turn"


class PolicyConflict(Refused):
    """409: A version that does not follow the one in force, or another was published meanwhile; that one stays."""

    code = "policy_conflict"


class PolicyNotFound(Refused):
    """404: The layer of the policy has no such version, or none at all."""

    code = "policy_not_found"


class ProvidersConflict(Refused):
    """409: Other providers were published meanwhile; those stay in force."""

    code = "providers_conflict"


class ProvidersNotFound(Refused):
    """404: There is no such version of provider entries or of a tenant's overrides, or none at all."""

    code = "providers_not_found"


class QueueNotFound(Refused):
    """404: The deployment has no dead-letter queue of that name."""

    code = "queue_not_found"


class QuotaExceeded(Refused):
    """429: A limit is used up: of `quota_scope` `tokens`, `web_search`, `code_interpreter`,
    `file_search`, `image_inputs` or `uploads`.
    """

    code = "quota_exceeded"


class RateLimited(Refused):
    """429: Too many at once, or in too short a time: `scope` is the limit's name, `limit` its number,
    and `whose` says whether it is the user's or that of all users of the tenant. API Gateway's own
    refusal has none of these.
    """

    code = "rate_limited"


class RequestIdConflict(Refused):
    """409: The `request_id` belongs to a turn that is not replayable; `turn_state` is its state,
    `stream_url` where it can be read (not for a deleted one).
    """

    code = "request_id_conflict"


class RequestIdReused(Refused):
    """422: The `request_id` is a completed turn's, with other content or attachments."""

    code = "request_id_reused"


class RequestTooLarge(Refused):
    """413: The request has more than 6 MB."""

    code = "request_too_large"


class ServiceUnavailable(Refused):
    """503: The store does not answer now, or not within the function's time; the request may have
    succeeded all the same, so repeat it unchanged.
    """

    code = "service_unavailable"


class TenantNotFound(Refused):
    """404: The tenant is one that the caller may not know of, or no tenant can be called so."""

    code = "tenant_not_found"


class TooManyImages(Refused):
    """400: More images than one message may have (`attachments.max_images_per_message`)."""

    code = "too_many_images"


class TurnNotFound(Refused):
    """404: The chat has no such turn."""

    code = "turn_not_found"


class Unauthenticated(Refused):
    """401: No token, or one that does not verify."""

    code = "unauthenticated"


class UnsupportedFileType(Refused):
    """415: A type that is not accepted, or a file that is not of its type."""

    code = "unsupported_file_type"


class UnsupportedMedia(Refused):
    """415: The model cannot see the message's images."""

    code = "unsupported_media"


class WebSearchDisabled(Refused):
    """400: Web search is switched off by the policy, and the message asks for it."""

    code = "web_search_disabled"


BY_CODE: dict[str, type[Refused]] = {
    "api_key_not_found": ApiKeyNotFound,
    "attachment_locked": AttachmentLocked,
    "attachment_not_found": AttachmentNotFound,
    "authorization_conflict": AuthorizationConflict,
    "being_erased": BeingErased,
    "chat_not_found": ChatNotFound,
    "context_budget_exceeded": ContextBudgetExceeded,
    "erasure_not_found": ErasureNotFound,
    "erasure_running": ErasureRunning,
    "export_not_found": ExportNotFound,
    "export_running": ExportRunning,
    "feature_not_licensed": FeatureNotLicensed,
    "file_too_large": FileTooLarge,
    "forbidden": Forbidden,
    "generation_in_progress": GenerationInProgress,
    "grant_not_found": GrantNotFound,
    "idempotency_key_conflict": IdempotencyKeyConflict,
    "images_disabled": ImagesDisabled,
    "input_too_long": InputTooLong,
    "internal_error": InternalError,
    "invalid_attachment": InvalidAttachment,
    "invalid_authorization": InvalidAuthorization,
    "invalid_cursor": InvalidCursor,
    "invalid_model": InvalidModel,
    "invalid_reaction_target": InvalidReactionTarget,
    "invalid_request": InvalidRequest,
    "invalid_turn_state": InvalidTurnState,
    "message_not_found": MessageNotFound,
    "method_not_allowed": MethodNotAllowed,
    "model_not_found": ModelNotFound,
    "not_found": NotFound,
    "not_latest_turn": NotLatestTurn,
    "policy_conflict": PolicyConflict,
    "policy_not_found": PolicyNotFound,
    "providers_conflict": ProvidersConflict,
    "providers_not_found": ProvidersNotFound,
    "queue_not_found": QueueNotFound,
    "quota_exceeded": QuotaExceeded,
    "rate_limited": RateLimited,
    "request_id_conflict": RequestIdConflict,
    "request_id_reused": RequestIdReused,
    "request_too_large": RequestTooLarge,
    "service_unavailable": ServiceUnavailable,
    "tenant_not_found": TenantNotFound,
    "too_many_images": TooManyImages,
    "turn_not_found": TurnNotFound,
    "unauthenticated": Unauthenticated,
    "unsupported_file_type": UnsupportedFileType,
    "unsupported_media": UnsupportedMedia,
    "web_search_disabled": WebSearchDisabled,
}
