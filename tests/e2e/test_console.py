"""The console as a person uses it: a real browser on the running stack, each test a thing that somebody does there."""

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from tests.support.http.browser import (
    Desk,
    answered,
    eventually,
    last_answer,
    send,
    serious_findings,
)
from tests.support.http.client import Stack, User

CODE = "Two things:\n\n```python\nprint('hi')\n```\n\n- one\n- **two**"


@pytest.fixture
def desk(browser: Any, stack: Stack) -> Iterator[Desk]:
    one = Desk(browser, stack.base_url, permissions=["clipboard-read", "clipboard-write"])
    yield one
    one.close()


def test_an_answer_is_drawn_as_it_is_written_with_its_tools_its_code_and_its_sources(
    desk: Desk, stack: Stack, name: str
) -> None:
    page = desk.signed_in("acme", name)
    page.get_by_role("button", name="Web").click()
    hold = uuid4().hex
    send(page, f"[[say:{CODE}]][[hold-tool:{hold}]][[hold:{hold}-text]]")
    page.get_by_text("Searching the web…").wait_for()
    stack.release(hold)
    page.get_by_text("Searched the web").wait_for()
    page.get_by_text("Two ").last.wait_for()
    assert page.get_by_role("button", name="Stop the answer").is_visible()
    stack.release(f"{hold}-text")
    answered(page)
    answer = last_answer(page)
    assert answer.locator("li strong").inner_text() == "two"
    answer.get_by_role("button", name="Copy the python code").click()
    answer.get_by_text("Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()").strip() == "print('hi')"
    assert answer.get_by_role("region", name="Sources").get_by_role("link").get_attribute("href").startswith("https://")


def test_chats_are_found_by_title_renamed_and_deleted_with_a_way_back(desk: Desk, person: User, name: str) -> None:
    kept, gone = person.new_chat(title="About whales"), person.new_chat(title="About ferns")
    page = desk.signed_in("acme", name)
    chats = page.get_by_role("navigation", name="Chats")
    page.get_by_label("Search chats by title").fill("whales")
    chats.get_by_text("About ferns").wait_for(state="detached")
    chats.get_by_text("About whales").hover()
    chats.get_by_role("button", name="Rename About whales").click()
    page.get_by_role("textbox", name="Title").fill("About blue whales")
    page.keyboard.press("Enter")
    chats.get_by_role("link", name="About blue whales").wait_for()
    assert person.chat(kept)["title"] == "About blue whales"
    page.get_by_label("Search chats by title").fill("")
    for title in ("About blue whales", "About ferns"):
        chats.get_by_text(title).hover()
        chats.get_by_role("button", name=f"Delete {title}").click()
        chats.get_by_text(title).wait_for(state="detached")
    page.locator(".notice", has_text="blue whales").get_by_role("button", name="Undo").click()
    chats.get_by_text("About blue whales").wait_for()
    # Who closes the window has made up their mind.
    page.reload()
    chats.get_by_text("About blue whales").wait_for()
    eventually(lambda: person.http.get(f"/chats/{gone}").status_code == 404)


def test_an_answer_is_stopped_asked_for_again_and_its_question_changed_in_place(
    desk: Desk, stack: Stack, person: User, name: str
) -> None:
    page = desk.signed_in("acme", name)
    hold = uuid4().hex
    send(page, f"[[say:first words]][[hold:{hold}]]")
    page.get_by_text("first", exact=True).wait_for()
    page.get_by_role("button", name="Stop the answer").click()
    page.get_by_text("Stopped.").wait_for()
    answered(page)
    stack.release(hold)
    page.get_by_role("button", name="Answer again").click()
    page.get_by_text("first words", exact=True).wait_for()
    answered(page)
    page.get_by_role("button", name="Edit the message").click()
    page.get_by_label("The message").fill("[[say:other words]]")
    page.keyboard.press("Enter")
    page.get_by_text("other words", exact=True).wait_for()
    answered(page)
    assert page.get_by_text("first words", exact=True).count() == 0
    [chat] = person.http.get("/chats").json()["items"]
    assert [one["content"] for one in person.messages(chat["id"])] == ["[[say:other words]]", "other words"]


def test_files_are_dropped_and_pasted_and_the_answer_names_them(desk: Desk, person: User, name: str) -> None:
    page = desk.signed_in("acme", name)
    give = """([kind, name]) => {
        const data = new DataTransfer();
        data.items.add(new File(["The sea is deep. ".repeat(20)], name, { type: "text/plain" }));
        const more = { bubbles: true, cancelable: true };
        const [place, event] = kind === "drop"
            ? ["main.conversation", new DragEvent("drop", { dataTransfer: data, ...more })]
            : [".composer textarea", new ClipboardEvent("paste", { clipboardData: data, ...more })];
        document.querySelector(place).dispatchEvent(event);
    }"""
    page.evaluate(give, ["drop", "sea.txt"])
    page.evaluate(give, ["paste", "<img src=x onerror=alert(1)>\u202etxt.exe"])
    page.locator(".file.ready").nth(1).wait_for()
    assert page.locator(".file bdi").all_inner_texts() == ["sea.txt", "<img src=x onerror=alert(1)>·txt.exe"]
    send(page, "What do the files say?")
    answered(page)
    question = page.get_by_role("article", name="You")
    assert question.locator(".file bdi").count() == 2
    [chat] = person.http.get("/chats").json()["items"]
    assert len(person.messages(chat["id"])[0]["attachments"]) == 2


def test_a_second_window_follows_the_same_answer_and_a_reload_in_its_middle_goes_on(
    desk: Desk, stack: Stack, name: str
) -> None:
    page = desk.signed_in("acme", name)
    hold = uuid4().hex
    send(page, f"[[say:begun and ended]][[hold:{hold}]]")
    page.get_by_text("begun", exact=True).wait_for()
    chat = page.url.partition("#")[2]
    other = desk.signed_in("acme", name, hash_=f"#{chat}")
    page.reload()
    for window in (page, other):
        window.get_by_text("begun", exact=True).wait_for()
        assert window.get_by_role("button", name="Stop the answer").is_visible()
    stack.release(hold)
    for window in (page, other):
        window.get_by_text("begun and ended", exact=True).wait_for()
        answered(window)
    # And what is asked in one is told in the other.
    send(other, "[[say:another one]]")
    page.get_by_text("another one", exact=True).wait_for()
    answered(page)
    assert page.get_by_role("article").count() == other.get_by_role("article").count() == 4


def test_what_happened_in_a_turn_is_listed_with_its_request_and_no_token(desk: Desk, name: str) -> None:
    page = desk.signed_in("acme", name)
    send(page, "[[say:one two three]]")
    answered(page)
    page.get_by_role("button", name="What happened", exact=True).click()
    panel = page.get_by_role("complementary", name="Details")
    rows = panel.get_by_role("table").get_by_role("row").all_inner_texts()
    numbers = [int(found[1]) for row in rows if (found := re.match(r"(\d+)\t[\d.]+\t", row))]
    assert numbers == list(range(1, len(numbers) + 1))
    assert [word for word in ("stream_started", "delta", "done") if not any(word in row for row in rows)] == []
    assert re.search(r"First delta\s+\d+\.\d\d s\s+Total\s+\d+\.\d\d s", panel.inner_text())
    curl = panel.locator("pre").inner_text()
    assert "/messages:stream' \\" in curl
    assert "Bearer …" in curl
    assert "eyJ" not in panel.inner_text()
    panel.get_by_text("done", exact=True).first.wait_for()


def test_a_turns_bill_says_what_was_reserved_counted_and_charged_and_why(desk: Desk, person: User, name: str) -> None:
    page = desk.signed_in("acme", name)
    send(page, "[[say:Paris.]][[usage:1000,500,100]]")
    answered(page)
    page.get_by_role("button", name="What happened", exact=True).click()
    shown = page.get_by_role("complementary", name="Details").get_by_role("region", name="Bill")
    shown.get_by_text("0.006 credits: what the provider counted, at the model's rates.").wait_for()
    [chat] = person.http.get("/chats").json()["items"]
    turn = person.messages(chat["id"])[0]["request_id"]
    bill = person.http.get(f"/chats/{chat['id']}/turns/{turn}/bill").json()
    rows = [row.split("\t") for row in shown.get_by_role("row").all_inner_texts()]
    amounts = {name: (tokens, credits) for name, tokens, credits in rows}
    assert amounts["Reserved"] == (f"{bill['reserved']['tokens']:,}", f"{bill['reserved']['credits_micro'] / 1e6:g}")
    assert amounts["Counted in, 100 of it cached"] == ("1,000", "")
    assert amounts["Charged"] == ("1,500", "0.006")
    together = bill["run"]["write_units"]["together"]
    assert re.search(rf"Write units\s+{together}: \d+ to begin, \d+ for the stream, \d+ to end", shown.inner_text())
    policy = f"version {bill['policy_versions']['deployment']} of the deployment"
    assert re.search(rf"Ended by\s+the provider\s+Policy\s+{policy}", shown.inner_text())
    assert "_" not in shown.inner_text()
    # Where the provider counted nothing, the bill says how it was charged then.
    send(page, "[[error:server_error]]")
    shown.get_by_text("estimated: the provider counted nothing").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_keeps_anybody_from_using_it(desk: Desk, name: str, scheme: str) -> None:
    page = desk.window()
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.get_by_role("textbox", name="Tenant").wait_for()
    assert serious_findings(page) == []
    page.get_by_role("textbox", name="User").fill(name)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Web").click()
    send(page, f"[[say:# Title\n\n{CODE}\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n- [x] done\n\n> said]]")
    answered(page)
    page.get_by_role("button", name="What happened", exact=True).click()
    assert serious_findings(page) == []
    page.get_by_role("tab", name="Quota").click()
    assert serious_findings(page) == []
    page.set_viewport_size({"width": 390, "height": 844})
    page.get_by_role("button", name="Close the details").click()
    page.get_by_role("button", name="Open the list of chats").click()
    assert serious_findings(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_chat_is_held_with_the_keyboard_alone(desk: Desk, name: str) -> None:
    page = desk.window()
    page.get_by_role("textbox", name="User").fill(name)
    page.keyboard.press("Enter")
    page.get_by_label("Message", exact=True).wait_for()
    page.keyboard.type("[[say:by keyboard]]")
    page.keyboard.press("Enter")
    answered(page)
    assert page.get_by_role("status").first.inner_text() == "The answer is finished."
    for _ in range(30):
        page.keyboard.press("Shift+Tab")
        if page.evaluate("document.activeElement.getAttribute('aria-label')") == "Answer again":
            break
    page.keyboard.press("Enter")
    answered(page)
    assert page.get_by_role("article").count() == 2
