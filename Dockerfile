# `minichat dev`: the whole product in one container, for development. Nothing of it is what is deployed.
FROM python:3.13-slim

RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*

WORKDIR /minichat
COPY Makefile pyproject.toml README.md LICENSE template.yaml ./
COPY requirements requirements
COPY infra infra
COPY functions functions
COPY clients/python clients/python
COPY shared shared
COPY console console
COPY clients/javascript/src clients/javascript/src
RUN make .venv/local.installed .tools/ministack/installed

EXPOSE 8080
VOLUME /data
ENTRYPOINT [".venv/bin/minichat", "dev", "--host", "0.0.0.0", "--state", "/data"]
