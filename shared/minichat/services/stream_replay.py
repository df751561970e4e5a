"""What a turn that has ended tells again: its stream under the same numbers, marked as not new (contract 3, rule 5).

Where its single events are no longer kept, the rest of the answer is rebuilt from the message, as one delta.
"""

from dataclasses import dataclass

from minichat.domain.stream import Citations, Delta, Started, Told, terminal_event, told
from minichat.domain.turn import Turn
from minichat.services.channel import Numbered
from minichat.storage import messages


@dataclass(frozen=True, slots=True)
class StreamPosition:
    """The last event that a client has, and how many characters of the answer it has by then, if known."""

    number: int
    characters: int | None

    @classmethod
    def after(cls, number: int) -> "StreamPosition":
        # Only the first event is known to hold no text.
        return cls(number, 0 if number <= 1 else None)

    def moved(self, one: Numbered) -> "StreamPosition":
        text = len(one.event.data["content"]) if one.event.name == "delta" else 0
        return StreamPosition(one.number or self.number, None if self.characters is None else self.characters + text)


def rebuilt(turn: Turn, at: StreamPosition) -> list[Numbered] | None:
    """What an ended turn has after its single events, or instead of them; None where that cannot be rebuilt.

    The rest of the answer is one delta, with the number of the last event that it replaces.
    """
    last, stored = last_number(turn), turn.events_stored or 0
    if at.number >= last:
        return []
    start = [Numbered(1, told(Started(turn.request_id, turn.assistant_message_id, True, turn.summary_tokens)))]
    start = start if at.number == 0 else []
    ending = [Numbered(last, told(terminal_event(turn)))]
    if at.number >= stored:
        return [*start, *ending]
    message = messages.read(turn.tenant_id, turn.chat_id, turn.assistant_message_id) if turn.answered else None
    # The terminal event is stored when the turn's own teller ended it.
    number = stored if turn.terminal_number is not None else stored - 1
    if message is not None and message.citations:
        # Citations come right before the end, and keep their number.
        ending.insert(0, Numbered(number, told(Citations(message.citations))))
        number -= 1
    if at.number >= number:
        return [*start, *(one for one in ending if one.number is not None and one.number > at.number)]
    if at.characters is None or (message is None and at.number > 1):
        return None
    text = "" if message is None else message.content[at.characters :]
    return [*start, *([Numbered(number, told(Delta(text)))] if text else []), *ending]


def marked(one: Numbered) -> Numbered:
    """An event as a replay tells it."""
    match one.event:
        case Told("stream_started", data):
            return Numbered(one.number, Told("stream_started", {**data, "is_new_turn": False}))
        case Told("done", data):
            kept = {name: value for name, value in data.items() if name != "quota_warnings"}
            return Numbered(one.number, Told("done", kept))
    return one


def last_number(turn: Turn) -> int:
    """The number of the terminal event."""
    return turn.terminal_number or turn.events_stored or 0
