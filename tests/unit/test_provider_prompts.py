"""What is asked of each kind of provider: sampling, tools, caps, and conversations that strict servers take."""

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from minichat.providers import anthropic_messages, bedrock_converse, openai_chat, openai_responses
from minichat.providers.prompt import Prompt, PromptMessage

SAMPLING: dict[str, Any] = {
    "temperature": 0.7,
    "top_p": 0.9,
    "frequency_penalty": 0.1,
    "presence_penalty": 0.2,
    "stop": ("END",),
    "reasoning_effort": "high",
    "extra_body": {"top_k": 1},
}
SAID: dict[str, Any] = {
    "instructions": "Be brief.",
    "max_tool_calls": 2,
    "web_search_context_size": "low",
    "api_params": SAMPLING,
    "user": "u",
    "metadata": {"chat": "c"},
}
LIFTED = {
    **{"model": "dear", "stream": False, "messages": [], "max_tokens": 9, "max_completion_tokens": 9, "n": 9},
    **{"stream_options": {}, "inferenceConfig": {"maxTokens": 9, "topP": 0.5}, "top_k": 1},
}


def a_prompt(*texts: str, **said: Any) -> Prompt:
    """A conversation of these texts, the user's first."""
    roles: tuple[Any, ...] = ("user", "assistant")
    messages = tuple(PromptMessage(roles[number % 2], text) for number, text in enumerate(texts or ("hi",)))
    values: dict[str, Any] = {"model": "small-1", "instructions": "", "messages": messages, "max_output_tokens": 64}
    return Prompt(**(values | said))


def test_chat_completions_are_asked_for_one_counted_stream() -> None:
    assert openai_chat.body(a_prompt("hi", "hello", "how?"), "max_tokens") == {
        "model": "small-1",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "hello"},
            {"role": "user", "content": "how?"},
        ],
        "max_tokens": 64,
    }
    least = openai_chat.body(a_prompt(), "max_completion_tokens")
    assert openai_chat.body(a_prompt(**SAID), "max_completion_tokens") == least | {
        **{name: value for name, value in SAMPLING.items() if name != "extra_body"},
        "top_k": 1,
        "web_search_options": {"search_context_size": "low"},
        "user": "u",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
    }


def test_extra_body_cannot_lift_what_the_reserve_was_computed_from() -> None:
    prompt = a_prompt(api_params={"extra_body": LIFTED})
    asked = openai_chat.body(prompt, "max_completion_tokens")
    least = openai_chat.body(a_prompt(), "max_completion_tokens")
    assert {name: asked[name] for name in least} == least
    assert not {"max_tokens", "n"} & asked.keys()
    asked = anthropic_messages.body(prompt)
    assert {name: asked[name] for name in anthropic_messages.body(a_prompt())} == anthropic_messages.body(a_prompt())
    asked = bedrock_converse.body(prompt)
    assert asked["inferenceConfig"] == {"topP": 0.5, "maxTokens": 64}
    assert asked["messages"] == [{"role": "user", "content": [{"text": "hi"}]}]


def test_messages_are_asked_for_in_anthropics_words() -> None:
    least = anthropic_messages.body(a_prompt())
    assert least == {
        "model": "small-1",
        "stream": True,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "max_tokens": 64,
    }
    assert anthropic_messages.body(a_prompt(**SAID)) == least | {
        "system": "Be brief.",
        "top_p": 0.9,
        "top_k": 1,
        "stop_sequences": ["END"],
        "output_config": {"effort": "high"},
        "tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 2}],
        "metadata": {"user_id": "u"},
    }


def test_converse_is_asked_for_in_bedrocks_words() -> None:
    least = bedrock_converse.body(a_prompt())
    assert least == {
        "messages": [{"role": "user", "content": [{"text": "hi"}]}],
        "inferenceConfig": {"maxTokens": 64},
    }
    assert bedrock_converse.body(a_prompt(**SAID)) == least | {
        "system": [{"text": "Be brief."}],
        "inferenceConfig": {"topP": 0.9, "stopSequences": ["END"], "maxTokens": 64},
        "outputConfig": {"effort": "high"},
        "toolConfig": {"tools": [{"systemTool": {"name": "nova_grounding"}}]},
        "requestMetadata": {"chat": "c"},
        "top_k": 1,
    }


def test_a_tool_that_may_not_be_called_is_not_offered() -> None:
    prompt = a_prompt(web_search_context_size="low", max_tool_calls=0)
    assert "tools" not in anthropic_messages.body(prompt)
    assert "toolConfig" not in bedrock_converse.body(prompt)


def turns_of(asked: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """The conversation of a request, whatever the API calls its parts."""
    turns = asked.get("input") or asked["messages"]
    return [
        (turn["role"], [turn["content"]] if isinstance(turn["content"], str) else [p["text"] for p in turn["content"]])
        for turn in turns
    ]


BODIES: list[Callable[[Prompt], dict[str, Any]]] = [
    openai_responses.body,
    lambda prompt: openai_chat.body(prompt, "max_tokens"),
    anthropic_messages.body,
    bedrock_converse.body,
]


def test_neighbours_of_one_role_are_sent_as_one() -> None:
    said = [
        ("assistant", "lost"),
        ("user", "a"),
        ("user", "b"),
        ("assistant", " \n"),
        ("user", "c"),
        ("assistant", "d"),
        ("user", "e"),
    ]
    messages = tuple(PromptMessage("user" if role == "user" else "assistant", text) for role, text in said)
    expected = [("user", ["a", "b", "c"]), ("assistant", ["d"]), ("user", ["e"])]
    responses, chat, anthropic, bedrock = (turns_of(body(a_prompt(messages=messages))) for body in BODIES)
    assert responses == anthropic == bedrock == expected
    # As one text: servers that insist on roles that alternate are often those that know no other.
    assert chat == [("user", ["a\n\nb\n\nc"]), ("assistant", ["d"]), ("user", ["e"])]


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["", " ", "\u3000", "a", "b"])), max_size=8))
def test_every_conversation_is_one_that_a_strict_server_takes(said: list[tuple[bool, str]]) -> None:
    messages = tuple(PromptMessage("user" if user else "assistant", text) for user, text in said)
    for body in BODIES:
        turns = turns_of(body(a_prompt(messages=(*messages, PromptMessage("user", "now")))))
        assert [role for role, _ in turns] == ["user", "assistant"] * (len(turns) // 2) + ["user"]
        assert all(text.strip() for _, texts in turns for text in texts)
        assert turns[-1][1][-1].endswith("now")


def test_images_stay_with_what_was_said_to_them() -> None:
    shown = (PromptMessage("user", "before"), PromptMessage("user", "and this?", ("file-1", "file-2")))
    (turn,) = openai_responses.body(a_prompt(messages=shown))["input"]
    assert [part.get("text") or part["file_id"] for part in turn["content"]] == [
        *("before", "and this?", "file-1", "file-2"),
    ]
