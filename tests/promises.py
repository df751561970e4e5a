"""Every promise of the contract and of the rules of turns and quota: its id, and the words that make it.

The words stand in the document: who changes them there sees it here, and looks whether its tests hold what it says now.
A test names what it holds: `@pytest.mark.holds("turns.one-running")`; `tests/unit/test_promises.py` compares both.
"""

DOCUMENTS = {"contract": "docs/contract.md", "turns": "docs/turns-and-quota.md"}
"""Which document the first word of an id stands for."""

PROMISES = {
    "contract.operations": "The machine-readable form is `GET /openapi.json`",
    "contract.allowed": "what it allows is never `invalid_request` but for what is stored",
    "contract.create": "the model is chosen now and stays",
    "contract.list-order": "most recently active first; no temporary ones",
    "contract.rename": "`{title}` only",
    "contract.delete-cancels": "a running turn is cancelled",
    "contract.cancel": "the turn ends within two seconds; idempotent; 200 with its state when it had ended",
    "contract.retry-forms": "also `…:retry`",
    "contract.resume-204": "204 when the client has everything",
    "contract.no-token": "`GET /health`, `GET /openapi.json` | 200 | no token needed",
    "contract.resume-refused": "and who stopped in between is refused (`invalid_request`) and reads it whole",
    "contract.upload": "multipart, one part named `file`, up to 4,600,000 bytes",
    "contract.upload-form": "`upload` is the form to post a larger file with",
    "contract.attachment-list": "the last added first, without those that were deleted",
    "contract.doc-summary": "a document's `doc_summary` comes some seconds later",
    "contract.attachment-deleted": "`DELETE /chats/{chat_id}/attachments/{attachment_id}` | 204 | idempotent",
    "contract.reaction": "`like` or `dislike`, in place of the one before; shown as `my_reaction`",
    "contract.reaction-gone": "`DELETE /chats/{chat_id}/messages/{message_id}/reaction` | 204 | idempotent",
    "contract.models": "enabled models only",
    "contract.quota-status": "what is used and left, per bucket and period, and of each number of the day",
    "contract.token": "RS256 or ES256, with issuer, audience, expiry, tenant and subject",
    "contract.api-key-revoked": (
        "a revoked one is refused everywhere within five seconds, and a stream that it began goes on to its end"
    ),
    "contract.same-404": "is always the same 404 `chat_not_found`",
    "contract.temporary": "are chats like any other, but in no list",
    "contract.temporary-end": "nobody has created it, sent, retried, edited or deleted anything in it, or renamed it",
    "contract.cursor": (
        "A cursor is signed, carries its order and filter, and belongs to its caller and list; anything "
        "else is 400 `invalid_cursor`"
    ),
    "contract.page-6mb": "may have fewer than `limit`: an answer has at most 6 MB",
    "contract.filter": "joined by `and`, `or`, `not` and parentheses",
    "contract.filter-chats": "texts are compared case by case",
    "contract.filter-1000": "A filter looks at 1,000 chats in one go",
    "contract.orderby": "both are the order of the conversation",
    "contract.not-understood": "Options that are not understood are refused",
    "contract.wait": "answered when the file is `ready` or `failed`, or with how it stands after N seconds",
    "contract.wait-15": "15 at most (`attachments.max_wait_seconds`)",
    "contract.reload": "An assistant message says what the end of its stream said",
    "contract.reload-running": "while the turn runs, only its models",
    "contract.body-6mb": "A request has at most 6 MB",
    "contract.body-read": "Of a body that is refused up to 64 MB are still read, for ten seconds at most",
    "contract.message-3mb": "A message has at most 3 MB of UTF-8 and 64 attachments, each once",
    "contract.message-readable": "What is longer could be stored and never read: it is `input_too_long`",
    "contract.answer-readable": "an answer of the model so long ends as a failure",
    "contract.bytes": "Text comes back byte for byte; half a surrogate pair is refused",
    "contract.key": "gives the same chat or attachment for 24 hours",
    "contract.key-deleted": "and 404 (`chat_not_found`, `attachment_not_found`) once that was deleted",
    "contract.problem": "`code` is the stable word, and `title` repeats it",
    "contract.codes": "[Every code with its status and cause]",
    "contract.checks": "Mutations check in this order, and the first that fails decides",
    "contract.send-order": (
        "Send: validation, chat visible, `request_id` known, another turn running, attachments, "
        "model and policy, then the transaction"
    ),
    "contract.lost-race": "A lost race answers what the winner made true",
    "contract.goes-on": "once that has been silent for 15 seconds without calling its provider; before that it is 409",
    "contract.numbers": "its number in the turn, from 1 without gaps",
    "contract.grammar": "stream_started ping* (delta | tool | ping)* citations? (done | error)",
    "contract.durable": (
        "What can be refused is refused before the stream opens. `stream_started` is sent after the turn is durable"
    ),
    "contract.summary-applied": "`thread_summary_applied: {token_estimate}` when a summary stands for the older part",
    "contract.one-terminal": "Exactly one terminal event, sent only by the finalizer that won, after its transaction",
    "contract.cut": "An answer that is cut ends in `done`, too, whose `completion_signal {kind, reason?}` says so",
    "contract.done-says": "`done` also carries usage (`null` when it is not known)",
    "contract.ping": "After `ping_interval_seconds` (15) without an event comes a `ping`, before the first token too",
    "contract.replay": "is the stream that the turn had, under the same numbers",
    "contract.replay-cut": "So a replay that is cut after any event is resumed there, by either request",
    "contract.cancelled-text": (
        "A cancelled turn keeps the text it had, and one whose process died keeps what was stored of "
        "it; a failed one has none"
    ),
    "contract.leaving": "Leaving a stream does not end its turn (`streaming.on_disconnect: continue`)",
    "contract.new-turn": "Retry and edit make a new turn, whose `request_id` is in `stream_started`",
    "contract.keeps-attachments": "The message keeps its attachments and its wish for web search",
    "contract.resume": "A stream can be resumed after any event, at any instance",
    "contract.resume-late": "Later than that it is one `delta` with the whole text, and the `citations`",
    "contract.resume-slow": "or, where what it has of it is not known, gets no last word, and comes again",
    "contract.dead-teller": "then an honest `error`, whose `id` is a million higher: no `id` ever names two events",
    "contract.deadline": (
        "a longer answer is cut, and ends in `done` as `incomplete` for the `deadline`; where no text "
        "has come, in `provider_timeout`"
    ),
    "contract.stopped": "So does one whose process has to stop (`interrupted`)",
    "contract.citations": "right before `done` and before no other end",
    "contract.citations-words": "`span {start, end}` counts characters of the whole text",
    "contract.repeated": "A send with that header and a known `request_id` continues that turn after that event",
    "contract.repeated-none": "no second turn is made and paid for",
    "contract.repeated-mutation": "A retry or edit continues the turn that it made, when that has the same message",
    "contract.repeated-all": "Who has everything gets an empty stream",
    "contract.tool-details": "A `tool` that is `done` says in `details` what it did, as far as its provider tells",
    "contract.error-sentences": "[Every code of `error`](reference/errors.md#in-a-stream) has a fixed sentence",
    "contract.request-id": (
        "`X-Request-Id` is taken from the caller when it is well formed, else made, and always returned"
    ),
    "contract.server-timing": "`Server-Timing` tells what the server spent on the token, reads, context",
    "contract.trace": "`traceparent` (W3C) gives the trace id of logs, events and problems",
    "contract.origins": "may call when `cors.allowed_origins` names them",
    "contract.origins-none": "and by default none may",
    "contract.origins-headers": "A page may send `Authorization`, `Content-Type`, `Idempotency-Key`",
    "contract.no-cookies": "Cookies are never asked for: no answer allows credentials",
    "turns.own-prices": "Settlement reads these, never today's policy or date",
    "turns.unknown-usage": "what is not known is `null` wherever it is told, and never 0",
    "turns.stored-codes": "Stored error codes are a closed set",
    "turns.nothing-before": "Before the transaction nothing exists, and after it somebody always ends the turn",
    "turns.delete": (
        "Delete hides the turn, takes its messages out of the conversation, and makes the turn before it the latest"
    ),
    "turns.successor": "follows the same predecessor and keeps the web-search setting and the attachments",
    "turns.admission-first": "Admission comes first: a refusal leaves the old turn as it was",
    "turns.one-mutation": "Of any number of mutations at once one succeeds",
    "turns.exact": "Tokens 0..10 000 000 and multipliers 1..10 000 000 000 are exact; others are refused",
    "turns.estimate": "4000 bytes with the defaults are 1210 tokens",
    "turns.surcharges": "images × image_token_budget + surcharges of the tools in play",
    "turns.no-overspend": "so parallel turns never overspend",
    "turns.premium-in-both": "Premium turns count in both buckets",
    "turns.cascade": "The cascade takes the first model whose reserve fits",
    "turns.web-search-day": "`quota.web_search_daily_quota` (75)",
    "turns.interpreter-day": "`quota.code_interpreter_daily_quota` (50)",
    "turns.file-search-day": "`quota.file_search_daily_quota` (200)",
    "turns.images-day": "`quota.image_inputs_daily_quota` (50)",
    "turns.uploads-day": "`quota.uploads_daily_quota` (100 files), `quota.upload_mb_daily_quota` (500 MB)",
    "turns.utc-days": "Days are those of UTC",
    "turns.last-search": "With one search left a turn begins with one, and its provider is asked for no more",
    "turns.beyond-aside": "A call beyond what was set aside ends the turn",
    "turns.given-back": "The end of a turn gives back the calls that it did not make",
    "turns.file-counted": "only one that never came (`upload_abandoned`)",
    "turns.capped": "above 110 % the user pays the reserve at most",
    "turns.publish": "Publishing takes a version above the one in force",
    "turns.publish-path": "is refused with the path of each wrong member, and the version in force stays",
    "turns.follow-policy": (
        "Every instance looks at the pointer again after `policy_refresh_seconds` (5), and keeps what "
        "it has while the table does not answer"
    ),
    "turns.policy-file": "Until the first one is published a file is in force",
    "turns.layers-inherit": "A layer inherits what it leaves out",
    "turns.layers-narrow": "A layer narrows: no layer switches on what a higher one has switched off",
    "turns.layers-limits": "Of limits the nearest layer counts",
    "turns.layers-refused": "What contradicts itself or a layer above is refused when it is published",
    "turns.layers-meaningless": (
        "What a later policy of the deployment makes meaningless is ignored, and refuses no send"
    ),
    "turns.layers-unknown-tenant": "Of a tenant whose layer is not known, and cannot be read, nobody is served (503)",
    "turns.layers-next-send": "a change is in force at the user's next send",
    "turns.layers-cost": "a million users with limits of their own cost nothing to any send",
    "turns.layers-recorded": "A turn records the versions of all layers that priced it",
    "turns.layers-withdrawn": "Withdrawing lets a layer inherit everything again, as a version of its own",
    "turns.layers-service": "While there is none within `deadline_ms`, or one that is no layer, the last known stays",
    "turns.inherit": "A model inherits from the deployment's settings what it does not say",
    "turns.available-from": "Before `available_from` it cannot be chosen",
    "turns.unusable": "What no answer can use is refused when a policy is published",
    "turns.settlement": "One function (`domain/settlement.py`) for every end",
    "turns.estimated": "never above the reserve. *Released* is nothing",
    "turns.refused-free": "an outage costs nobody anything",
    "turns.cut-costs": "cut after 4,000 bytes of text 2,000",
    "turns.finalize": "reserve → spent in the periods in which the turn began, a usage event and an audit event",
    "turns.not-stored": "A completed turn whose answer cannot be stored ends as `message_persistence_failed`",
    "turns.remaining": "`warning` at or below 100 − `quota.warning_threshold_pct` (80), `exhausted` at 0",
    "turns.reset": "Daily limits reset at UTC midnight, monthly ones on the first",
    "turns.which-limit": "Of several the one counts that resets last",
    "turns.no-reset": "Where waiting does not help there is no `next_reset`",
    "turns.sign-of-life": "A running turn renews its sign of life every five seconds",
    "turns.dead": "Whoever meets it ends it as `failed` / `orphan_timeout`",
    "turns.watchdog": "That runs every minute, any number of times at once",
    "turns.one-turn-alone": "one that cannot be read or ended is counted and told, and the others go on",
    "turns.zombie": "A zombie that wakes up later fails that condition and changes nothing",
    "turns.dead-costs": "It costs its estimate when its provider was called, and nothing when it was not",
    "turns.not-begun": "One that has not said so counts as dead after 15 silent seconds",
    "turns.cancelled-dead": (
        "A turn that somebody asked to stop counts as dead after 30 silent seconds, and ends as cancelled"
    ),
    "turns.store-clock": "all of them are of one clock: the store's",
    "turns.margins": "The margins also hold without that, where a store tells no `Date`",
    "turns.no-waiting": "nobody has to wait for the watchdog's minute",
    "turns.one-running": "At most one running turn per chat",
    "turns.one-settlement": "One terminal transition, one settlement, one usage event and one audit event per turn",
    "turns.books": (
        "Committed credits, tool calls and images of ended turns, and reserves of running ones, are "
        "what the quota items say"
    ),
    "turns.every-difference": "`minichat reconcile` recomputes them and names every difference",
    "turns.latest": "`latest` names the newest turn that is not deleted, or nothing",
    "turns.count": "`message_count` equals the visible messages",
    "turns.refused-nothing": "A refused request changes nothing",
    "turns.replay-nothing": "A replay writes nothing and equals the original outcome",
}
