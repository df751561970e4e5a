"""The product's server as a function has it: without the checks by which the local stack is as strict as AWS."""

import argparse
import gc
import os

import uvicorn

from minichat.http.app import create_app
from minichat.settings import load

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    app = create_app(load(os.environ))
    gc.freeze()
    uvicorn.run(app, port=options.port, log_level="warning", access_log=False, backlog=4096, http="h11")
