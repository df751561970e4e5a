"""The least that can answer a request after some calls to DynamoDB: they are made as told, by the product's client."""

import argparse
import json
import os
from typing import Any

import uvicorn
from fastapi import FastAPI, Request

from minichat.settings import load
from minichat.storage.dynamodb import Connections, Where


def create_app() -> FastAPI:
    """An app that is told by `PUT /plan` which calls `/do` makes, one after the other."""
    app, plan = FastAPI(), list[tuple[str, dict[str, Any]]]()
    connections = Connections(Where.of(load(os.environ).store))

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {}

    @app.put("/plan")
    async def planned(request: Request) -> dict[str, str]:
        plan[:] = [(operation, json.loads(body)) for operation, body in await request.json()]
        return {}

    @app.api_route("/do", methods=["GET", "POST", "DELETE"])
    async def do() -> dict[str, int]:
        answers = [await connections.call(operation, params) for operation, params in plan]
        return {"answers": len(answers)}

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    uvicorn.run(create_app(), port=parser.parse_args().port, log_level="error", http="h11")
