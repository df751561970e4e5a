"""The console of who operates: limits, usage, running turns, dead letters, policy and switches, in a browser."""

import json
from uuid import uuid4

import pytest

from minichat.local.issuer import as_uuid
from tests.support.http.browser import Desk, answered, last_answer, send, serious_findings
from tests.support.http.client import Stack


@pytest.fixture
def tenant() -> str:
    """A tenant that no other test has."""
    return f"tenant-{uuid4().hex[:8]}"


def limited(stack: Stack, tenant: str, user: str, *, premium: int, standard: int) -> None:
    """Gives a user limits of their own, in micro-credits a day and a month."""
    limits = {
        tier: {"limit_daily_credits_micro": most, "limit_monthly_credits_micro": most}
        for tier, most in (("premium", premium), ("standard", standard))
    }
    with stack.operating(tenant, "tenant_admin") as admin:
        answer = admin.put(f"/tenants/{as_uuid(tenant)}/users/{as_uuid(user)}/limits", json=limits)
    assert answer.status_code == 200, answer.text


def test_what_is_left_is_a_bar_and_a_downgrade_is_told_where_it_happens(desk: Desk, stack: Stack, tenant: str) -> None:
    limited(stack, tenant, "ann", premium=1, standard=100_000_000)
    page = desk.signed_in(tenant, "ann")
    send(page, "[[say:cheaper]]")
    answered(page)
    assert "answered instead of" in last_answer(page).inner_text()
    page.get_by_role("button", name="What happened", exact=True).click()
    page.get_by_role("tab", name="Quota").click()
    panel = page.get_by_role("complementary", name="Details")
    assert panel.get_by_role("meter", name="Today: ").count() == 2
    assert serious_findings(page) == []
    limited(stack, tenant, "ann", premium=1, standard=1)
    desk.expects("429")
    send(page, "[[say:too much]]")
    page.get_by_role("alert").get_by_text("quota_exceeded").wait_for()
    assert page.get_by_label("Message", exact=True).input_value() == "[[say:too much]]"


def test_usage_is_a_chart_and_a_table_and_a_running_turn_is_cancelled(desk: Desk, stack: Stack, tenant: str) -> None:
    writer = desk.signed_in(tenant, "ann")
    send(writer, "[[say:counted]]")
    answered(writer)
    hold = uuid4().hex
    send(writer, f"[[say:never ends]][[hold:{hold}]]")
    writer.get_by_text("never", exact=True).wait_for()
    page = desk.signed_in(tenant, "boss", "tenant_admin")
    page.get_by_role("link", name="Operate").click()
    usage = page.get_by_role("region", name="Usage")
    while usage.count() == 0:
        page.get_by_role("button", name="Read again").click()
        page.wait_for_timeout(200)
    assert usage.get_by_role("row").count() == 2
    assert page.get_by_role("img", name="Credits by day").is_visible()
    assert serious_findings(page) == []
    page.get_by_role("tab", name="Running turns").click()
    page.get_by_role("button", name="Cancel the turn").click()
    writer.get_by_text("Stopped.").wait_for()
    page.get_by_text("No turn runs.").wait_for()
    stack.release(hold)


def test_a_policy_is_compared_before_it_is_published_and_a_switch_takes_hold(desk: Desk, tenant: str) -> None:
    page = desk.signed_in(tenant, "boss", "tenant_admin", hash_="#/operate")
    desk.expects("404")
    page.get_by_role("tab", name="Policy").click()
    field = page.get_by_label("Document")
    field.fill("{")
    page.get_by_role("button", name="Compare").click()
    page.get_by_text("This is no JSON").wait_for()
    assert page.get_by_role("button", name="Publish").is_disabled()
    field.fill(json.dumps({"policy_version": 1, "kill_switches": {"disable_images": True}}))
    page.get_by_role("button", name="Compare").click()
    page.get_by_role("region", name="What would change").get_by_text("disable_images").wait_for()
    assert serious_findings(page) == []
    page.get_by_role("button", name="Publish").click()
    page.get_by_text("Version 1 is in force.").wait_for()
    page.get_by_role("tab", name="Kill switches").click()
    assert page.get_by_role("switch", name="Images are off").is_checked()
    page.get_by_role("switch", name="Web search is off").check()
    page.get_by_text("Web search is off, within seconds.").wait_for()
    assert serious_findings(page) == []


def test_queues_and_their_dead_letters_are_the_operators(desk: Desk, tenant: str) -> None:
    page = desk.signed_in(tenant, "root", "operator", hash_="#/operate")
    page.get_by_role("tab", name="Dead letters").click()
    queues = page.get_by_role("region", name="Queues")
    queues.get_by_role("row").nth(2).wait_for()
    assert queues.get_by_role("button", name="Redrive").count() >= 2
    assert serious_findings(page) == []
