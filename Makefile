# `make help` lists what there is. Everything is installed into .venv and .tools, from locked versions, when first needed.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

PYTHON ?= python3
ENV ?= dev
ARCHITECTURE ?= arm64
PYTHON_RUNTIME ?= python3.13
COMPUTE ?= lambda
LOCK_PYTHON := 3.11
WORKERS ?= 3

VENV := .venv/bin
SAM := .tools/sam/bin/sam
PYTEST := $(VENV)/python -m pytest
NODE_MODULES := clients/javascript/node_modules/.package-lock.json
CFN_LINT := $(VENV)/cfn-lint --regions us-east-1 --template
TEMPLATES := template.yaml $(wildcard infra/*.yaml) $(wildcard examples/*/template.yaml)
# Locks are complete, so pip has nothing to resolve; what it takes is what was hashed.
# At a terminal pip shows how far it is.
INSTALL := -m pip install $(shell test -t 2 || echo --quiet) --no-deps --require-hashes --requirement

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export SAM_CLI_TELEMETRY := 0

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

## Running

.PHONY: run
run: .venv/local.installed .tools/ministack/installed ## Start everything on this machine; needs no account and no key
	@exec $(VENV)/minichat dev $(ARGS)

# Containers run what this machine can run, whatever is deployed.
sam-local containers: ARCHITECTURE := $(if $(filter arm64 aarch64,$(shell uname -m)),arm64,x86_64)

.PHONY: sam-local
sam-local: build .venv/local.installed .tools/ministack/installed ## The same, and the built functions in containers; needs Docker
	@exec $(VENV)/minichat dev --sam-local $(ARGS)

## Checking

.PHONY: test
test: lint tools $(NODE_MODULES) .venv/docs.installed .venv/browsers.installed ## Run the linters and every test
	$(PYTEST) --numprocesses $(WORKERS) --dist loadfile tests/unit tests/integration tests/model tests/race tests/e2e

.PHONY: unit
unit: .venv/docs.installed .tools/sam/installed ## Run the tests that need no engine: domain, parsers, template
	$(PYTEST) --numprocesses $(WORKERS) tests/unit

.PHONY: integration
integration: .venv/dev.installed .tools/ministack/installed ## Run the tests against a local engine
	$(PYTEST) tests/integration

.PHONY: race
race: .venv/dev.installed tools ## Run the races on every engine that is installed
	RACE_ROUNDS=100 RACE_SECONDS=60 $(PYTEST) tests/race

.PHONY: race-full
race-full: .venv/dev.installed tools ## Run the races with many more rounds; takes long
	RACE_ROUNDS=1000 RACE_SECONDS=600 $(PYTEST) --timeout 7200 tests/race

.PHONY: model
model: .venv/dev.installed .tools/ministack/installed ## Live random lives of chats and check every invariant after each of 100,000 steps
	MODEL_EXAMPLES=2300 $(PYTEST) -s --timeout 36000 tests/model

.PHONY: walk
walk: .venv/dev.installed .tools/ministack/installed ## Walk the table of every write (docs/architecture.md), and print what came of each
	WALK=1 $(PYTEST) -s tests/integration/test_transactions.py

.PHONY: orphans
orphans: .venv/dev.installed .tools/ministack/installed ## Kill servers and wait for the watchdog's schedule; takes two minutes
	ORPHANS=1 $(PYTEST) --timeout 600 tests/e2e/test_orphans.py

.PHONY: browsers
browsers: .venv/browsers.installed .tools/ministack/installed ## Use the console in Chromium as people do, with 5,000 chats and 2,000 messages; takes long
	BROWSERS=1 $(PYTEST) --timeout 3600 tests/e2e/test_console.py tests/e2e/test_console_operator.py tests/e2e/test_console_bad_input.py tests/e2e/test_console_network.py

.PHONY: screenshots
screenshots: .venv/browsers.installed .tools/ministack/installed ## Make docs/images anew: the console in Chromium on a running stack
	$(VENV)/python -m tests.screenshots

.PHONY: killed-engine
killed-engine: .venv/dev.installed .tools/ministack/installed ## Kill the engine during 200 turns with --state, and print what was lost
	KILLED_TURNS=200 $(PYTEST) -s tests/e2e/test_killed_engine.py

.PHONY: events
events: .venv/dev.installed .tools/ministack/installed ## Send 10,000 turns while relay and consumers are killed at random; takes long
	EVENTS_TURNS=10000 $(PYTEST) -s --timeout 7200 tests/e2e/test_events.py

.PHONY: containers
containers: build .tools/ministack/installed ## Hold a conversation with the built functions in containers of `sam local`
	tests/engines/with_docker.sh $(PYTHON_RUNTIME) $(ARCHITECTURE) env CONTAINERS=1 $(PYTEST) -s --timeout 1200 tests/e2e/test_sam_local.py

.PHONY: cuts
cuts: .venv/dev.installed .tools/ministack/installed ## Cut connections of the JavaScript client 1,000 times, at every kind of byte
	CUTS=1000 $(PYTEST) -s --timeout 3600 tests/e2e/test_javascript_client.py -k cut

.PHONY: chaos
chaos: .venv/dev.installed .tools/ministack/installed ## Ask for 10,000 answers while all that can go wrong does; takes hours
	CHAOS_TURNS=10000 $(PYTEST) -s --timeout 28800 tests/e2e/test_chaos.py

.PHONY: fuzz
fuzz: .venv/dev.installed .tools/ministack/installed ## Compare document and server with 20,000 generated requests; takes long
	MINICHAT_QUOTA__UPLOADS_DAILY_QUOTA=1000000 FUZZ_CASES=$${FUZZ_CASES:-20000} $(PYTEST) -s --timeout 14400 tests/e2e/test_openapi.py

.PHONY: generators
generators: .venv/dev.installed .tools/ministack/installed .tools/outsiders/installed .tools/generators/installed ## Make clients of the OpenAPI document, and hold a conversation with each
	GENERATORS=1 $(PYTEST) tests/e2e/test_generated_clients.py

.PHONY: clocks
clocks: .venv/dev.installed tools ## Run the suite with clocks that are days wrong, and at a month's end; takes hours; ARGS=--help
	$(VENV)/python -m tests.clocks $(ARGS)

.PHONY: mutants
mutants: .venv/mutants.installed .tools/ministack/installed ## Put faults into rules and edge, and see tests fail; takes ten minutes; ARGS=--help
	$(VENV)/python -m tests.mutants $(ARGS)

.PHONY: long
long: .venv/dev.installed .tools/ministack/installed ## Hold a conversation of 300 turns in a small window
	LONG_TURNS=300 $(PYTEST) -s tests/e2e/test_long_conversation.py

.PHONY: openai-clients
openai-clients: .venv/dev.installed .tools/ministack/installed ## Cut streams of OpenAI's own clients 400 times; takes minutes
	OPENAI_CUTS=400 $(PYTEST) --timeout 3600 tests/e2e/test_openai_clients.py

.PHONY: e2e
e2e: .venv/dev.installed .tools/ministack/installed ## Run the tests over HTTP against the local stack
	$(PYTEST) tests/e2e

.PHONY: command-alone
command-alone: .venv/dev.installed .tools/ministack/installed ## Install the command alone, from an index, and talk to the stack with it
	COMMAND_ALONE=1 $(PYTEST) tests/e2e/test_command_alone.py

.PHONY: python-cuts
python-cuts: .venv/dev.installed .tools/ministack/installed ## Cut the Python client's connections 1,000 times, at every kind of place
	CUTS=1000 $(PYTEST) -s --timeout 3600 tests/e2e/test_python_client_cuts.py

.PHONY: bench
bench: .venv/dev.installed .tools/ministack/installed .tools/sam/installed .tools/litellm/installed ## Measure latencies and costs, and print them
	$(VENV)/python -m tests.bench

USERS ?= 1000000
.PHONY: users-with-limits
users-with-limits: .venv/dev.installed .tools/ministack/installed ## What a send costs beside so many users with limits of their own (USERS=1000000)
	$(VENV)/python -m tests.bench.users_with_limits $(USERS)

.PHONY: erase
erase: .venv/dev.installed .tools/ministack/installed ## Erase a user with 50 chats in processes that are killed 20 times
	ERASE_CHATS=50 ERASE_KILLS=20 $(PYTEST) tests/integration/test_erasures.py -k at_random

.PHONY: export
export: .venv/dev.installed .tools/ministack/installed ## Export a user in processes that are killed 40 times
	EXPORT_KILLS=40 $(PYTEST) tests/integration/test_exports.py -k at_random

.PHONY: lint
lint: types .tools/sam/installed ## Check style, types, import direction and the templates, also as SAM translates them
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/lint-imports
	$(CFN_LINT) $(TEMPLATES)
	@mkdir -p .aws-sam
	.tools/sam/bin/python tests/support/aws/translate.py template.yaml > .aws-sam/translated.json
	$(CFN_LINT) .aws-sam/translated.json
	cp template.yaml .aws-sam/on-instances.yaml
	.tools/sam/bin/python infra/on_instances.py .aws-sam/on-instances.yaml
	.tools/sam/bin/python tests/support/aws/translate.py .aws-sam/on-instances.yaml > .aws-sam/on-instances.json
	$(CFN_LINT) .aws-sam/on-instances.json
	AWS_EC2_METADATA_DISABLED=true $(SAM) validate --lint --region us-east-1 --template template.yaml

.PHONY: types
types: .venv/dev.installed ## Check types
	$(VENV)/mypy

.PHONY: docs
docs: .venv/dev.installed ## Write docs/reference, the OpenAPI documents, the schemas of docs/events and the tables of docs/scaling.md
	$(VENV)/python -m tests.reference

.PHONY: docs-site
docs-site: .venv/docs.installed .site/source/mermaid.min.js ## Build the documentation as a site: .site/html/index.html
	NO_MKDOCS_2_WARNING=1 $(VENV)/mkdocs build --strict --quiet

.PHONY: client-types
client-types: .venv/dev.installed $(NODE_MODULES) ## Write the types of the JavaScript client from the OpenAPI document
	$(VENV)/python -m tests.reference.javascript_types

.PHONY: decisions
decisions: .venv/dev.installed ## Compile the default policies (Cedar) into the table that decides
	$(VENV)/python -c 'from tests.reference import decisions; decisions.main()'

.PHONY: format
format: .venv/dev.installed ## Format the code and mend what can be mended
	$(VENV)/ruff check --fix .
	$(VENV)/ruff format .

## Deploying

.PHONY: runtime-python
runtime-python:
	@$(PYTHON_RUNTIME) -c '' 2>/dev/null || { \
		echo "$(PYTHON_RUNTIME) is not here. It makes the .pyc, without which cold starts take twice as long." >&2; \
		echo "Get it with \`uv python install $(PYTHON_RUNTIME:python%=%)\`, pyenv or your system's packages," \
			"and have it in the PATH." >&2; exit 1; }

# The environment comes first in PATH for its pip, which the layers' Makefiles use.
.PHONY: build
build: .venv/dev.installed .tools/sam/installed ## Package the functions and layers for Lambda
	@$(MAKE) --no-print-directory --silent --ignore-errors runtime-python
	PATH="$(CURDIR)/$(VENV):$$PATH" TARGET_PYTHON=$(PYTHON_RUNTIME:python%=%) TARGET_ARCHITECTURE=$(ARCHITECTURE) \
		$(SAM) build --parameter-overrides PythonRuntime=$(PYTHON_RUNTIME) Architecture=$(ARCHITECTURE)
	.tools/sam/bin/python infra/for_sam_local.py .aws-sam/build PythonRuntime=$(PYTHON_RUNTIME) Architecture=$(ARCHITECTURE)
	$(if $(filter managed-instances,$(COMPUTE)),.tools/sam/bin/python infra/on_instances.py .aws-sam/build/template.yaml)

.PHONY: deploy
deploy: runtime-python build ## Deploy to ENV=dev, staging or prod, as samconfig.toml says
	.tools/sam/bin/python infra/new_versions.py .aws-sam/build/template.yaml . $(ENV)
	$(SAM) deploy --config-env $(ENV)

## Environments

.PHONY: tools
tools: .tools/ministack/installed .tools/sam/installed .tools/dynoxide/dynoxide .tools/dynamodb-local/installed .tools/outsiders/installed ## Install engines, SAM CLI and linters of the OpenAPI documents

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; name it as in: make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Making .venv"
	@$(PYTHON) -m venv .venv

.venv/local.installed: requirements/local.txt pyproject.toml | .venv/bin/python
	@echo "Installing requirements/local.txt"
	@$(VENV)/python $(INSTALL) requirements/local.txt
	@$(VENV)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.venv/dev.installed: requirements/dev.txt .venv/local.installed
	@echo "Installing requirements/dev.txt"
	@$(VENV)/python $(INSTALL) requirements/dev.txt
	@touch $@

.venv/docs.installed: requirements/docs.txt .venv/dev.installed
	@echo "Installing requirements/docs.txt"
	@$(VENV)/python $(INSTALL) requirements/docs.txt
	@touch $@

.venv/browsers.installed: requirements/browsers.txt .venv/dev.installed
	@echo "Installing requirements/browsers.txt"
	@$(VENV)/python $(INSTALL) requirements/browsers.txt
	@touch $@

.venv/mutants.installed: requirements/mutants.txt .venv/dev.installed
	@echo "Installing requirements/mutants.txt"
	@$(VENV)/python $(INSTALL) requirements/mutants.txt
	@touch $@

.tools/ministack/installed: requirements/engine.txt
.tools/sam/installed: requirements/sam.txt
.tools/litellm/installed: requirements/litellm.txt
.tools/generators/installed: requirements/generators.txt
.tools/ministack/installed .tools/sam/installed .tools/litellm/installed .tools/generators/installed:
	@echo "Installing $<"
	@rm -rf $(@D) # not venv --clear, which would empty what a link points to
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python $(INSTALL) $<
	@touch $@

DYNOXIDE := 1.2.1
DYNOXIDE_SHA512 := b011ea97127d00d90b96e1646117dde6bf18d00a457b0e0584eae5860440803e17cc4a053ae904a359ee053435fa34eda1fab09f83564369344e7e663538e052

# Optional: without it the races run on the engines that are here.
.tools/dynoxide/dynoxide:
	@if [ "$$(uname -sm)" != "Linux x86_64" ]; then echo "Skipping dynoxide: it is for Linux on x86-64"; \
	elif ! command -v npm >/dev/null; then echo "Skipping dynoxide: npm is not here"; \
	else echo "Installing dynoxide" && mkdir -p $(@D) && cd $(@D) && \
		npm pack --silent @dynoxide/linux-x64@$(DYNOXIDE) >/dev/null && \
		echo "$(DYNOXIDE_SHA512)  dynoxide-linux-x64-$(DYNOXIDE).tgz" | sha512sum --check --quiet && \
		tar -xzf dynoxide-linux-x64-$(DYNOXIDE).tgz --strip-components 1 package/dynoxide && \
		rm dynoxide-linux-x64-$(DYNOXIDE).tgz; fi

MERMAID := 11.17.2
MERMAID_SHA512 := 57a2b70bc101744b0f1595d228c25eea9a50384371b87011afd1af1d7e21878ee501b84c443f6a7f8a042bb2e869143150b31af34feab798073bbdda0a578106

# What draws the pictures of the site, so that its readers need no network.
.site/source/mermaid.min.js:
	@command -v npm >/dev/null || { echo "The site's pictures are drawn by a script that npm fetches: install npm" >&2; exit 1; }
	@echo "Installing mermaid"
	@mkdir -p $(@D) && cd $(@D) && npm pack --silent mermaid@$(MERMAID) >/dev/null && \
		echo "$(MERMAID_SHA512)  mermaid-$(MERMAID).tgz" | sha512sum --check --quiet && \
		tar -xzf mermaid-$(MERMAID).tgz --strip-components 2 package/dist/mermaid.min.js && rm mermaid-$(MERMAID).tgz

# Optional: what the JavaScript client's types and adapters are checked with.
$(NODE_MODULES): clients/javascript/package-lock.json
	@if ! command -v npm >/dev/null; then echo "Skipping the JavaScript client's tools: npm is not here"; \
	else echo "Installing the JavaScript client's tools" && cd clients/javascript && \
		npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null; fi

# Each library of the console: package, version, SHA-512 of what npm packs, file in it, and file of ours.
define CONSOLE_LIBRARIES
preact 11.2.0 fc77c723fecdf387ba1ab581277276f34cf798b6912620dc4af8ff03ecbfe006cb9cd0ffd549461ded6c47aa18b931b021dd273fb76a0d4f4e9cbc4c3d9ef106 dist/preact.mjs preact.js
preact 11.2.0 fc77c723fecdf387ba1ab581277276f34cf798b6912620dc4af8ff03ecbfe006cb9cd0ffd549461ded6c47aa18b931b021dd273fb76a0d4f4e9cbc4c3d9ef106 hooks/dist/hooks.mjs preact-hooks.js
@preact/signals 2.11.4 45bfb944fa3d81649a1edcc979aba11f1882f0a3ff205d8310f9073c43863a7bb2db09c9cd1ab278b45a9e450261de800eab714ba1a7586bfa21edf8dddf1a63 dist/signals.mjs signals.js
@preact/signals-core 1.14.5 bdc46fec8b72cf925599e895a8896e2c5cd3fcf0d2fc09611d4a70dff6945aa71552ce9b0c620f5c4ffa4520b87af04d598be79e2a338394b27e3df76a5de092 dist/signals-core.mjs signals-core.js
htm 3.1.1 f7cdd5ca0f0dc1413b26467a3663aaa4267eb21d5b2afda2613954933956980e490f669c2a8c5de0a5716cc9b15fff399ad7dd9c399316834a720e43180bf135 dist/htm.mjs htm.js
marked 18.2.1 8a2e1bc424c2aaac294fce9765680936cf999c021992c98b19831589603b3c321760878da35c7a703757dc93a2a7d34cfdc23aa7ccf9ec5c6588009ba13aee30 lib/marked.esm.js marked.js
dompurify 3.5.0 2d80b466413c3f5578d89b11613c0c7667bfd844fc4a939ce4003678e1633ff21a76f45dd9fc224f84d5cf9be47f2d17531d76692d946919139df54f34ebfdbf dist/purify.min.js dompurify.js
endef
export CONSOLE_LIBRARIES

# Imports become relative: a page that lets no inline script in can have no import map.
.PHONY: console-libraries
console-libraries: ## Fetch the console's libraries anew, as they are pinned here
	@command -v npm >/dev/null || { echo "The libraries are in npm's registry: install npm" >&2; exit 1; }
	@set -eu; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; ours=$(CURDIR)/console/vendor; cd "$$folder"; \
	echo "$$CONSOLE_LIBRARIES" | while read -r package version sum theirs file; do \
		packed=$$(npm pack --silent "$$package@$$version"); \
		echo "$$sum  $$packed" | sha512sum --check --quiet; \
		tar -xzf "$$packed" --to-stdout "package/$$theirs" | sed \
			-e 's#//\# sourceMappingURL=.*$$##' -e 's#"preact/hooks"#"./preact-hooks.js"#g' \
			-e 's#"@preact/signals-core"#"./signals-core.js"#g' -e 's#"preact"#"./preact.js"#g' > "$$ours/$$file"; \
	done

# Optional too.
.tools/dynamodb-local/installed: tests/engines/pom.xml
	@if ! command -v mvn >/dev/null; then echo "Skipping DynamoDB Local: mvn is not here"; \
	elif ! java --version 2>/dev/null | head -1 | awk '{exit !($$2 + 0 >= 17)}'; then \
		echo "Skipping DynamoDB Local: Java 17 or later is not here"; \
	else echo "Installing DynamoDB Local" && rm -rf $(@D) && \
		mvn --batch-mode --quiet -Dstyle.color=never --strict-checksums --file $< \
			dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/$(@D) && touch $@; fi

SWAGGER_UI := 5.35.0
SWAGGER_UI_SHA512 := 534eaba4cb56f55dd73c638179a993512af4674f63317e0826e00da44fc465b021c341bc0a0c2bcd4e18997927fe1d3008336c5dd19aad334d1c2dec53cc9551
DOCS_PAGE := shared/minichat/http/docs_page

.PHONY: docs-page
docs-page: ## Take Swagger UI, which GET /docs is made of, into the source anew; needs npm
	@rm -rf .tools/swagger-ui && mkdir -p .tools/swagger-ui && cd .tools/swagger-ui && \
		npm pack --silent swagger-ui-dist@$(SWAGGER_UI) >/dev/null && \
		echo "$(SWAGGER_UI_SHA512)  swagger-ui-dist-$(SWAGGER_UI).tgz" | sha512sum --check --quiet && \
		tar -xzf swagger-ui-dist-$(SWAGGER_UI).tgz
	for file in swagger-ui-bundle.js swagger-ui.css; do \
		gzip -9nc .tools/swagger-ui/package/$$file > $(DOCS_PAGE)/$$file.gz || exit 1; done
	cp .tools/swagger-ui/package/LICENSE $(DOCS_PAGE)/
	cd .tools/swagger-ui/package && cat NOTICE swagger-ui-bundle.js.LICENSE.txt > $(CURDIR)/$(DOCS_PAGE)/NOTICE

# Optional too: what others read the OpenAPI documents with.
.tools/outsiders/installed: tests/outsiders/package.json tests/outsiders/package-lock.json
	@if ! command -v npm >/dev/null; then echo "Skipping the linters of the OpenAPI documents: npm is not here"; \
	elif ! node -e 'const [major, minor] = process.versions.node.split("."); process.exit(+(major * 100 + +minor < 2019))'; then \
		echo "Skipping the linters of the OpenAPI documents: Node 20.19 or later is not here"; \
	else echo "Installing $<" && rm -rf $(@D) && mkdir -p $(@D) && cp $^ $(@D) && cd $(@D) && \
		npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && touch installed; fi

## Housekeeping

COMPILE := $(VENV)/pip-compile $(LOCK_ARGS)

.PHONY: lock
lock: .venv/dev.installed ## Write the locks anew; LOCK_ARGS=--upgrade moves to the newest versions
	@$(VENV)/python -c 'import sys; sys.exit(sys.version_info[:2] != tuple(map(int, "$(LOCK_PYTHON)".split("."))))' || \
		{ echo "Locks are made with Python $(LOCK_PYTHON), the oldest that is supported" >&2; exit 1; }
	$(COMPILE) --all-extras --output-file requirements/dev.txt pyproject.toml
	$(COMPILE) --constraint requirements/dev.txt --extra functions --extra local --extra images --extra cedar --output-file requirements/local.txt pyproject.toml
	$(COMPILE) --constraint requirements/dev.txt --extra functions --output-file requirements/runtime.txt pyproject.toml
	$(COMPILE) --constraint requirements/dev.txt --output-file requirements/images.txt requirements/images.in
	$(COMPILE) --constraint requirements/dev.txt --output-file requirements/cedar.txt requirements/cedar.in
	$(COMPILE) --constraint requirements/dev.txt --output-file requirements/mutants.txt requirements/mutants.in
	$(COMPILE) --constraint requirements/dev.txt --output-file requirements/browsers.txt requirements/browsers.in
	$(COMPILE) --constraint requirements/dev.txt --output-file requirements/docs.txt requirements/docs.in
	$(COMPILE) --output-file requirements/engine.txt requirements/engine.in
	$(COMPILE) --output-file requirements/sam.txt requirements/sam.in
	$(COMPILE) --output-file requirements/litellm.txt requirements/litellm.in
	$(COMPILE) --output-file requirements/generators.txt requirements/generators.in
	cp requirements/runtime.txt layers/dependencies/requirements.txt
	cp requirements/images.txt layers/images/requirements.txt
	cp requirements/cedar.txt layers/cedar/requirements.txt

.PHONY: clean
clean: ## Remove what make and the tests made, the environments too
	rm -rf .venv .tools clients/javascript/node_modules .aws-sam .site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -type d -name __pycache__ -prune -exec rm -rf {} +
