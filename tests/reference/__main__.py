"""Writes all of it into the folders: python -m tests.reference, or `make docs`."""

from minichat.local import event_schemas
from minichat.local.tables import project_root
from tests.reference import FOLDER, RECORDS, SCALING, client, list_of_records, openapi, pages, with_costs

for name, text in pages().items():
    (project_root() / FOLDER / name).write_text(text, encoding="utf-8")
for name, text in openapi.documents().items():
    (project_root() / openapi.FOLDER / name).write_text(text, encoding="utf-8")
for name, text in client.modules().items():
    (project_root() / client.FOLDER / name).write_text(text, encoding="utf-8")
records = project_root() / RECORDS
(records / "README.md").write_text(list_of_records(records), encoding="utf-8")
scaling = project_root() / SCALING
scaling.write_text(with_costs(scaling.read_text(encoding="utf-8")), encoding="utf-8")
event_schemas.main()
