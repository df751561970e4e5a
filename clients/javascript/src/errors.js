/**
 * What a call can fail with: one class for each code of a problem document (docs/reference/errors.md), and one for a
 * connection that is gone.
 *
 * @typedef {import("./schema.js").components["schemas"]["Problem"]} ProblemDocument
 */

/** Everything that this package throws by itself. */
export class MiniChatError extends Error {
  /** @override */
  name = "MiniChatError";
}

/** The server could not be reached, or did not go on, as often as was tried; `cause` is the last failure. */
export class ConnectionLost extends MiniChatError {
  /** @override */
  name = "ConnectionLost";
}

/**
 * A refusal. `code` is the stable word, empty where something between here and the server answered in words of its own.
 */
export class Problem extends MiniChatError {
  /**
   * @param {number} status HTTP status
   * @param {Partial<ProblemDocument>} document the problem document
   * @param {number} [retryAfter] seconds after which another try may succeed, where that is known
   */
  constructor(status, document, retryAfter) {
    super(document.detail ?? `The server answered with status ${status}`);
    this.status = status;
    this.code = document.code ?? "";
    // Not the class's own name, which a bundler may have shortened.
    this.name = this.code.replace(/(?:^|_)(\w)/g, (_, letter) => letter.toUpperCase()) || "Problem";
    /** Which inputs are wrong, and why. */
    this.errors = document.errors ?? [];
    this.traceId = document.trace_id;
    this.retryAfter = retryAfter;
    this.document = document;
  }
}

export class ApiKeyNotFound extends Problem {}
export class AttachmentLocked extends Problem {}
export class AttachmentNotFound extends Problem {}
export class AuthorizationConflict extends Problem {}
export class BeingErased extends Problem {}
export class ChatNotFound extends Problem {}
export class ContextBudgetExceeded extends Problem {}
export class ErasureNotFound extends Problem {}
export class ErasureRunning extends Problem {}
export class ExportNotFound extends Problem {}
export class ExportRunning extends Problem {}
export class FeatureNotLicensed extends Problem {}
export class FileTooLarge extends Problem {}
export class Forbidden extends Problem {}
export class GenerationInProgress extends Problem {}
export class GrantNotFound extends Problem {}
export class IdempotencyKeyConflict extends Problem {}
export class ImagesDisabled extends Problem {}
export class InputTooLong extends Problem {}
export class InternalError extends Problem {}
export class InvalidAttachment extends Problem {}
export class InvalidAuthorization extends Problem {}
export class InvalidCursor extends Problem {}
export class InvalidModel extends Problem {}
export class InvalidReactionTarget extends Problem {}
export class InvalidRequest extends Problem {}
export class InvalidTurnState extends Problem {}
export class MessageNotFound extends Problem {}
export class MethodNotAllowed extends Problem {}
export class ModelNotFound extends Problem {}
export class NotFound extends Problem {}
export class NotLatestTurn extends Problem {}
export class PolicyConflict extends Problem {}
export class PolicyNotFound extends Problem {}
export class ProvidersConflict extends Problem {}
export class ProvidersNotFound extends Problem {}
export class QueueNotFound extends Problem {}
export class QuotaExceeded extends Problem {}
export class RateLimited extends Problem {}
export class RequestIdConflict extends Problem {}
export class RequestIdReused extends Problem {}
export class RequestTooLarge extends Problem {}
export class ServiceUnavailable extends Problem {}
export class TenantNotFound extends Problem {}
export class TooManyImages extends Problem {}
export class TurnNotFound extends Problem {}
export class Unauthenticated extends Problem {}
export class UnsupportedFileType extends Problem {}
export class UnsupportedMedia extends Problem {}
export class WebSearchDisabled extends Problem {}

/** @type {Record<string, typeof Problem>} */
export const BY_CODE = {
  api_key_not_found: ApiKeyNotFound,
  attachment_locked: AttachmentLocked,
  attachment_not_found: AttachmentNotFound,
  authorization_conflict: AuthorizationConflict,
  being_erased: BeingErased,
  chat_not_found: ChatNotFound,
  context_budget_exceeded: ContextBudgetExceeded,
  erasure_not_found: ErasureNotFound,
  erasure_running: ErasureRunning,
  export_not_found: ExportNotFound,
  export_running: ExportRunning,
  feature_not_licensed: FeatureNotLicensed,
  file_too_large: FileTooLarge,
  forbidden: Forbidden,
  generation_in_progress: GenerationInProgress,
  grant_not_found: GrantNotFound,
  idempotency_key_conflict: IdempotencyKeyConflict,
  images_disabled: ImagesDisabled,
  input_too_long: InputTooLong,
  internal_error: InternalError,
  invalid_attachment: InvalidAttachment,
  invalid_authorization: InvalidAuthorization,
  invalid_cursor: InvalidCursor,
  invalid_model: InvalidModel,
  invalid_reaction_target: InvalidReactionTarget,
  invalid_request: InvalidRequest,
  invalid_turn_state: InvalidTurnState,
  message_not_found: MessageNotFound,
  method_not_allowed: MethodNotAllowed,
  model_not_found: ModelNotFound,
  not_found: NotFound,
  not_latest_turn: NotLatestTurn,
  policy_conflict: PolicyConflict,
  policy_not_found: PolicyNotFound,
  providers_conflict: ProvidersConflict,
  providers_not_found: ProvidersNotFound,
  queue_not_found: QueueNotFound,
  quota_exceeded: QuotaExceeded,
  rate_limited: RateLimited,
  request_id_conflict: RequestIdConflict,
  request_id_reused: RequestIdReused,
  request_too_large: RequestTooLarge,
  service_unavailable: ServiceUnavailable,
  tenant_not_found: TenantNotFound,
  too_many_images: TooManyImages,
  turn_not_found: TurnNotFound,
  unauthenticated: Unauthenticated,
  unsupported_file_type: UnsupportedFileType,
  unsupported_media: UnsupportedMedia,
  web_search_disabled: WebSearchDisabled,
};

/**
 * The error of an answer that is no success.
 *
 * @param {Response} response
 * @returns {Promise<Problem>}
 * @throws {ConnectionLost} when it is cut
 */
export async function problemOf(response) {
  /** @type {Partial<ProblemDocument>} */
  let document = {};
  const text = await textOf(response);
  try {
    const said = JSON.parse(text);
    if (typeof said?.code === "string") document = said;
  } catch {
    // A gateway's page: the status says enough.
  }
  const Class = (document.code && Object.hasOwn(BY_CODE, document.code) && BY_CODE[document.code]) || Problem;
  return new Class(response.status, document, secondsOf(response.headers.get("retry-after"), document));
}

/**
 * @param {Response} response
 * @returns {Promise<string>}
 * @throws {ConnectionLost}
 */
export async function textOf(response) {
  try {
    return await response.text();
  } catch (cause) {
    throw new ConnectionLost("The answer was cut", { cause });
  }
}

/**
 * @param {string | null} header in seconds, or a date
 * @param {Partial<ProblemDocument>} document
 * @returns {number | undefined}
 */
function secondsOf(header, document) {
  const seconds = document.retry_after_seconds ?? (header ? Number(header) : NaN);
  if (!Number.isNaN(seconds)) return Math.max(seconds, 0);
  const until = Date.parse(header ?? "") - Date.now();
  return Number.isNaN(until) ? undefined : Math.max(until / 1000, 0);
}

/**
 * Whether the same request may succeed a little later.
 *
 * @param {unknown} error
 * @returns {boolean}
 */
export function isTemporary(error) {
  if (error instanceof ConnectionLost) return true;
  if (!(error instanceof Problem) || error instanceof QuotaExceeded) return false;
  return [429, 502, 503, 504].includes(error.status);
}
