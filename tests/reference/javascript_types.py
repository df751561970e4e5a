"""The types of the JavaScript client, made from the OpenAPI document by openapi-typescript."""

import json
import subprocess
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic.warnings import UnsupportedFieldAttributeWarning

from minichat.http.document import document

CLIENT = Path(__file__).parents[2] / "clients" / "javascript"
TYPES = CLIENT / "src" / "schema.d.ts"
MAKER = CLIENT / "node_modules" / ".bin" / "openapi-typescript"


def made() -> str:
    """The file as it should be. The client has words of its own for operations, so only the schemas are taken."""
    with warnings.catch_warnings():
        # As the app does: FastAPI mutes it only once it has made a validator of a body.
        warnings.simplefilter("ignore", UnsupportedFieldAttributeWarning)
        described = {**document("/mini-chat"), "paths": {}}
    with TemporaryDirectory() as folder:
        source, target = Path(folder, "schemas.json"), Path(folder, "schema.d.ts")
        source.write_text(json.dumps(described))
        subprocess.run([MAKER, source, "--output", target], check=True, capture_output=True, timeout=120)
        return target.read_text()


if __name__ == "__main__":
    TYPES.write_text(made())
