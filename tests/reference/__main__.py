"""Writes the pages and the schemas of events: python -m tests.reference, or `make docs`."""

from minichat.local import event_schemas
from minichat.local.tables import project_root
from tests.reference import FOLDER, pages

for name, text in pages().items():
    (project_root() / FOLDER / name).write_text(text, encoding="utf-8")
event_schemas.main()
