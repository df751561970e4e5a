"""The HTTP server of the local stack: one process with the app of every function, configured by its environment."""

import argparse
import os
import sys

import uvicorn

from minichat.http.app import create_app
from minichat.settings import SettingsError, load


def main() -> None:
    """Serves until it is stopped; wrong settings end it with code 2 and their names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    try:
        app = create_app(load(os.environ))
    except SettingsError as error:
        sys.exit(f"{error}")
    uvicorn.run(
        app,
        host=options.host,
        port=options.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=1,
        backlog=4096,
    )


if __name__ == "__main__":
    main()
