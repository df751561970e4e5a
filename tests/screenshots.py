"""Makes the pictures of docs/images: the console in Chromium, on a local stack of its own.

python -m tests.screenshots [FOLDER OF A RUNNING STACK]
"""

import io
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from minichat.local.issuer import as_uuid
from tests.conftest import ROOT, running_stack
from tests.support.http.browser import Desk, answered, chromium, send

IMAGES = ROOT / "docs" / "images"
ANSWER = """A stream that survives is read like any other:

```python
for event in client.send(chat, "Why is the sky blue?"):
    print(event.text, end="")
```

- **Cut?** It goes on after the last event it had.
- **Sent twice?** It is one turn, by its `request_id`.

Blue light is scattered most, so it comes from everywhere."""

SAID = {
    "Why is the sky blue, and how do I read the answer?": f"{ANSWER}]][[delay:120",
    "Who answers when the premium quota is used up?": "A model of the standard tier, as the policy says."
    " The answer tells which one it was.",
    "Names for a lighthouse": "Northlight, Gull's Lamp, or simply Aurora.",
    "Why bread rises": "Yeast turns sugar into gas, and gluten holds it.",
}
"""What the scripted provider is told to answer: beside the question, so that no picture shows the script."""
MARKERS = re.compile(r'(?:\\n| )\[\[(?:[^"\\]|\\.)*(?=")')


def main() -> None:
    """Makes every picture anew."""
    IMAGES.mkdir(exist_ok=True)
    with chromium() as browser:
        if sys.argv[1:]:
            about = json.loads((Path(sys.argv[1]) / "dev.json").read_text())
            _pictures(browser, about)
            return
        with tempfile.TemporaryDirectory() as folder, running_stack(Path(folder) / "stack") as stack:
            _pictures(browser, stack.about)


def _pictures(browser: Any, about: dict[str, Any]) -> None:
    desk = Desk(browser, str(about["base_url"]), viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    desk.context.route("**/messages:stream", _with_its_script)
    desk.context.route(re.compile(r"/v1/chats[^:]*$"), _without_scripts)
    page = desk.signed_in("acme", "ada")
    for title in ("Names for a lighthouse", "Why bread rises"):
        send(page, title)
        answered(page)
        page.get_by_role("link", name=title).wait_for()
        page.get_by_role("button", name="New chat").click()
    page.get_by_role("button", name="Web").click()
    send(page, "Why is the sky blue, and how do I read the answer?")
    page.get_by_text("Cut?", exact=True).wait_for()
    _shown(page, "streaming")
    page.reload()
    page.get_by_text("Cut?", exact=True).wait_for()
    page.get_by_role("button", name="What happened", exact=True).click()
    _shown(page, "resumed")
    answered(page)
    page.get_by_role("link", name="Why is the sky").first.wait_for()
    _shown(page, "console")
    page.emulate_media(color_scheme="dark")
    _shown(page, "dark")
    page.get_by_role("button", name="Close the details").click()
    page.set_viewport_size({"width": 390, "height": 844})
    _shown(page, "phone")
    _quota_and_operate(desk, page)
    desk.context.close()


def _with_its_script(route: Any) -> None:
    body = route.request.post_data_json
    body["content"] += f"\n[[say:{SAID[body['content']]}]]"
    route.continue_(post_data=json.dumps(body))


def _without_scripts(route: Any) -> None:
    if route.request.method != "GET" or route.request.url.endswith("/stream"):
        route.continue_()
        return
    answer = route.fetch()
    route.fulfill(response=answer, body=MARKERS.sub("", answer.text()))


def _quota_and_operate(desk: Desk, page: Any) -> None:
    boss = desk.signed_in("acme", "boss", "tenant_admin")
    limits = {
        tier: {"limit_daily_credits_micro": most, "limit_monthly_credits_micro": most}
        for tier, most in (("premium", 1), ("standard", 400_000))
    }
    boss.evaluate(
        """async ([path, json]) => {
            const { admin } = await import(document.querySelector("script").src.replace("app.js", "session.js"));
            await admin.value.request("PUT", path, { json });
        }""",
        [f"/tenants/{as_uuid('acme')}/users/{as_uuid('ada')}/limits", limits],
    )
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 1280, "height": 800})
    page.evaluate("location.hash = '#/'")
    page.get_by_text("What shall it be?").wait_for()
    send(page, "Who answers when the premium quota is used up?")
    answered(page)
    page.get_by_role("button", name="What happened", exact=True).click()
    page.get_by_role("tab", name="Quota").click()
    _shown(page, "quota")
    boss.get_by_role("link", name="Operate").click()
    while boss.get_by_role("region", name="Usage").count() == 0:
        boss.get_by_role("button", name="Read again").click()
        boss.wait_for_timeout(300)
    _shown(boss, "operate")


def _shown(page: Any, name: str) -> None:
    page.mouse.move(2, 2)
    # 256 colours are all that a page of text has, in a third of the bytes.
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(IMAGES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
