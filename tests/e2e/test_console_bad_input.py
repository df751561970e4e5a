"""The console where things go wrong: each has a look of its own, nothing is lost, and nothing of a stranger's runs."""

import os
from typing import Any
from uuid import uuid4

import httpx2

from tests.conftest import another_server
from tests.support.http.browser import (
    LONG,
    Desk,
    answered,
    eventually,
    last_answer,
    send,
    sign_in,
)
from tests.support.http.client import Stack, User

EVIL = """<script>window.was = 1</script><img src=x onerror="window.was = 2">

[click](javascript:alert(1)) [data](data:text/html,x) ![seen](https://evil.example/pixel.gif)
<a href="javascript:alert(1)" style="position:fixed">over</a> **fine**"""


def test_what_strangers_write_is_text_and_no_link_runs_or_picture_tells_who_reads(desk: Desk, name: str) -> None:
    page = desk.signed_in("acme", name)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    send(page, f"[[echo]]{EVIL}")
    answered(page)
    answer = last_answer(page)
    assert answer.locator("strong").inner_text() == "fine"
    assert page.evaluate("window.was") is None
    assert answer.locator("script, img, [style], [onerror]").count() == 0
    assert answer.locator("a").evaluate_all("links => links.map(one => one.href)") == ["https://evil.example/pixel.gif"]
    assert "<script>" in answer.inner_text()
    assert not [url for url in asked if "evil.example" in url]


def test_right_to_left_and_invisible_letters_move_nobody_elses_words(desk: Desk, person: User, name: str) -> None:
    person.new_chat(title="abc\u202etxt.exe\u200b")
    page = desk.signed_in("acme", name)
    page.get_by_role("link", name="abc·txt.exe·").wait_for()
    send(page, "[[echo]]مرحبا بالعالم")
    answered(page)
    block = last_answer(page).locator(".block p")
    eventually(lambda: block.evaluate("one => getComputedStyle(one.parentElement).direction") == "rtl")


def test_a_token_that_is_refused_in_the_middle_of_work_is_asked_for_and_nothing_is_lost(
    browser: Any, stack: Stack, name: str
) -> None:
    with another_server(stack, MINICHAT_AUTH__JWKS=os.fspath(stack.state / "jwks.json")) as server:
        desk = Desk(browser, server.base_url)
        page = desk.context.new_page()
        # As at a deployment, which signs nothing.
        page.route("**/console/config.json", lambda route: route.fulfill(json={"sign_in": "token"}))
        page.goto(desk.url)
        page.get_by_label("Token").fill("Bearer " + stack.token("acme", name))
        page.get_by_role("button", name="Sign in").click()
        page.get_by_label("Message", exact=True).wait_for()
        page.route(
            "**/messages:stream", lambda route: route.fulfill(status=401, json={"code": "unauthenticated"}), times=1
        )
        send(page, "[[say:still here]]")
        page.get_by_role("dialog").get_by_label("Token").fill(stack.token("acme", name))
        page.get_by_role("dialog").get_by_role("button", name="Sign in").click()
        page.get_by_text("still here", exact=True).wait_for()
        answered(page)
        desk.close()


def test_two_windows_that_send_at_once_make_one_turn_and_lose_no_words(
    desk: Desk, stack: Stack, person: User, name: str
) -> None:
    chat = person.new_chat()
    one = desk.signed_in("acme", name, hash_=f"#/chat/{chat}")
    two = desk.signed_in("acme", name, hash_=f"#/chat/{chat}")
    desk.expects("409")
    hold = uuid4().hex
    # The second window does not see in time that the first has sent.
    two.evaluate("Object.defineProperty(document, 'hidden', { get: () => true })")
    send(one, f"[[say:of the first]][[hold:{hold}]]")
    one.get_by_role("button", name="Stop the answer").wait_for()
    send(two, "[[say:of the second]]")
    two.get_by_role("alert").get_by_text("An answer is being written in this chat").wait_for()
    assert two.get_by_label("Message", exact=True).input_value() == "[[say:of the second]]"
    stack.release(hold)
    for page in (one, two):
        page.get_by_text("of the first", exact=True).wait_for()
        answered(page)
    assert len(person.messages(chat)) == 2


def test_three_megabytes_are_refused_in_a_sentence_and_stay_to_be_sent(desk: Desk, name: str) -> None:
    page = desk.signed_in("acme", name)
    desk.expects("413|400|422")
    field = page.get_by_label("Message", exact=True)
    field.evaluate(
        """(field) => {
            const data = new DataTransfer();
            data.setData("text/plain", "all work and no play ".repeat(150_000));
            field.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
        }"""
    )
    page.get_by_text("A text of 3,150,000 characters").wait_for()
    page.get_by_role("button", name="Send", exact=True).click()
    page.get_by_role("alert").wait_for()
    assert page.get_by_text("A text of 3,150,000 characters").is_visible()
    page.get_by_role("button", name="Take the text away").click()
    assert field.input_value() == ""


def test_a_browser_that_keeps_nothing_says_so_and_works(desk: Desk) -> None:
    desk.context.add_init_script(
        """for (const name of ["localStorage", "sessionStorage"])
             Object.defineProperty(window, name, { get() { throw new DOMException("denied", "SecurityError"); } });"""
    )
    page = desk.window()
    page.get_by_text("This browser keeps nothing for this page").wait_for()
    sign_in(page, "acme", f"user-{uuid4().hex[:8]}")
    send(page, "[[say:it works]]")
    page.get_by_text("it works", exact=True).wait_for()
    answered(page)


def test_a_chat_that_is_not_there_is_told_as_such(desk: Desk, name: str) -> None:
    page = desk.signed_in("acme", name)
    desk.expects("404|400")
    page.evaluate("location.hash = '#/chat/00000000-0000-4000-8000-000000000001'")
    page.get_by_text("This chat is not here").wait_for()
    page.get_by_role("button", name="A new chat").click()
    send(page, "[[say:new]]")
    answered(page)


def test_many_chats_and_messages_are_read_page_by_page(desk: Desk, person: User, name: str) -> None:
    chats, turns = (5000, 1000) if LONG else (60, 25)
    for number in range(chats):
        person.new_chat(title=f"Chat {number}")
    chat = person.new_chat(title="The long one")
    for number in range(turns):
        person.send(chat, f"[[say:answer {number}.]][[delay:0]]")
    page = desk.signed_in("acme", name, hash_=f"#/chat/{chat}")
    page.get_by_text(f"answer {turns - 1}.", exact=True).wait_for()
    assert page.get_by_role("article").count() == 40
    rows = page.locator(".chat-row")
    eventually(lambda: rows.count() >= 50)
    thread = page.get_by_role("region", name="Messages")
    first = page.get_by_text("answer 0.", exact=True)
    while first.count() == 0:
        thread.evaluate("one => { one.scrollTop = 0; one.dispatchEvent(new Event('scroll')); }")
        page.wait_for_timeout(50)
    while rows.count() < chats + 1:
        page.locator(".chats").evaluate("one => { one.scrollTop = one.scrollHeight; }")
        page.wait_for_timeout(50)


def test_the_page_is_light_and_lets_nothing_in(desk: Desk, stack: Stack, name: str) -> None:
    page = desk.context.new_page()
    network = desk.context.new_cdp_session(page)
    network.send("Network.enable")
    sizes: list[float] = []
    network.on("Network.loadingFinished", lambda told: sizes.append(told["encodedDataLength"]))
    page.goto(desk.url)
    page.get_by_role("button", name="Sign in").wait_for()
    assert 20_000 < sum(sizes) < 150_000
    paints = "performance.getEntriesByName('first-contentful-paint').map(one => one.startTime)"
    [painted] = page.evaluate(paints)
    # A second where nothing else runs (docs/decisions/0036-console.md); a suite has neighbours.
    assert painted < 5000

    base = stack.base_url
    with httpx2.Client(trust_env=False) as http:
        shown = http.get(f"{base}/console")
        policy = shown.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert http.get(f"{base}/console", headers={"if-none-match": shown.headers["etag"]}).status_code == 304
        version = shown.text.split('src="console/')[1].split("/")[0]
        script = http.get(f"{base}/console/{version}/console/app.js")
        assert "immutable" in script.headers["cache-control"]
        for path in ("../shared/minichat/settings.py", "pyproject.toml", "console/%2e%2e/pyproject.toml", "console/"):
            assert http.get(f"{base}/console/{version}/{path}").status_code == 404
        # Another site that has its name resolved to this machine, or asks from its page, signs nobody in.
        body = {"tenant": "acme", "user": "ann"}
        for headers in ({"host": "evil.example"}, {"sec-fetch-site": "cross-site"}):
            assert http.post(f"{base}/console/token", json=body, headers=headers).status_code in {404, 405}
        assert http.post(f"{base}/console/token", json=body).status_code == 200


def test_a_deployment_that_wants_no_console_has_none(stack: Stack) -> None:
    with another_server(stack, MINICHAT_CONSOLE="false") as server, httpx2.Client(trust_env=False) as http:
        for path in ("", "/config.json", "/token"):
            assert http.get(f"{server.base_url}/console{path}").status_code == 404
        assert http.get(f"{server.base_url.partition('/mini-chat')[0]}/console").status_code == 404
