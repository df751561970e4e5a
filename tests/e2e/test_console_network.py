"""The console on a network that fails: an answer comes whole, and once."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.http.browser import Desk, answered, last_answer, send
from tests.support.http.client import Stack, User
from tests.support.http.cutting_proxy import Cut, CuttingProxy

TEXT = " ".join(f"wört{number}" for number in range(1, 41))
COMPLAINTS = "ERR_|Failed to load resource"
"""What a browser says of a connection that is gone."""


@contextmanager
def behind(browser: Any, proxy: CuttingProxy) -> Iterator[Desk]:
    """A desk whose browser reaches the stack by the proxy alone."""
    desk = Desk(browser, proxy.url)
    yield desk
    desk.expects(COMPLAINTS)
    desk.close()


def only_chat(person: User) -> str:
    [chat] = person.http.get("/chats").json()["items"]
    return str(chat["id"])


def test_an_answer_that_is_cut_before_and_within_its_events_comes_whole_and_once(
    browser: Any, stack: Stack, person: User, name: str
) -> None:
    cuts = [Cut("unanswered"), Cut("head"), Cut("character", 2, abrupt=True), Cut("between", 3)]
    coming = iter(cuts)
    with CuttingProxy(stack.base_url, lambda _: next(coming, None)) as proxy, behind(browser, proxy) as desk:
        page = desk.signed_in("acme", name)
        send(page, f"[[say:{TEXT}]]")
        page.get_by_text(TEXT, exact=True).wait_for()
        answered(page)
        # How much of an answer a connection still carried when it was cut, the browser decides.
        assert proxy.cuts["unanswered"] == 1
        assert proxy.cuts["character"] + proxy.cuts["between"] >= 1
        assert last_answer(page).locator(".block").all_inner_texts() == [TEXT]
        page.get_by_role("button", name="What happened", exact=True).click()
        rows = page.locator(".events tbody tr")
        numbers = [int(row.split("\t")[0]) for row in rows.all_inner_texts() if row[0].isdigit()]
        assert numbers == list(range(1, len(numbers) + 1))
        assert page.locator(".events .resumed").count() >= 1
    assert [one["content"] for one in person.messages(only_chat(person))][1] == TEXT
