# Needs Python 3.11 or later (with venv), GNU make and a package index; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Further arguments of pytest, such as ARGS="tests/router_ml -k policy".
ARGS ?=
# The folder that the notebooks look into.
HOME_OF ?= demo-output
# Further arguments of the demo, such as DEMO="--n 3000".
DEMO ?=

export MLFLOW_DISABLE_TELEMETRY := true
export ORT_DISABLE_TELEMETRY := 1
export GIT_PYTHON_REFRESH := quiet

.DEFAULT_GOAL := help
.PHONY: help install demo test test-soak check notebooks lint format bench-speed bench-train bench-ingest bench-pipeline bench-quality lock secrets clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## make .venv with everything in it; again only after the lock or pyproject.toml changed

$(STAMP): requirements/all.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed: make install PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "$(PYTHON) has no venv module; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "installing about 2.2 GB into $(VENV); this takes a minute or two"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/all.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: install ## play the whole cycle on a simulated workload; ends with a table and demo-output/report.html
	$(BIN)/router-ml demo $(DEMO)

test: lint ## lint, then every test; real tables are used when ROUTER_ML_OUTCOMES names their folder
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not soak" $(ARGS)

test-soak: install ## load the service with everything at once, for a minute; CI runs it after the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m soak

notebooks: install ## open the review notebooks on the demo's output; HOME_OF=. for the router.toml of this folder
	MARIMO_SKIP_UPDATE_CHECK=1 ROUTER_ML_NOTEBOOK_HOME=$(HOME_OF) $(BIN)/marimo edit notebooks

check: test ## the same as test: everything that CI runs

lint: install secrets ## format, lint, types, import rules, secrets; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

secrets: install # scan what is, or may become, tracked; hashes, short plain words and names of variables are none
	@test ! -e .git || git ls-files -z --cached --others --exclude-standard | xargs -0 $(BIN)/detect-secrets-hook \
		--no-verify --exclude-files '^requirements/.*\.lock$$|^models/default/' \
		--exclude-secrets '^([a-z ]{1,12}|[A-Z]+(_[A-Z]+)+( is not set)?)$$'

format: install ## format the code and mend what can be mended by itself
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench-speed: install ## time a decision; prints a table and writes JSON
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/speed/run.py

bench-train: install ## time training on logs of up to a million rows; half an hour
	$(BIN)/python benchmarks/speed/train.py

bench-pipeline: install ## time the event store and retraining from a million rows; half an hour
	$(BIN)/python benchmarks/speed/pipeline.py

bench-ingest: install ## time the event store on PostgreSQL when it is full; ten minutes, and 5 GB in the temporary folder
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/speed/ingest.py

bench-quality: install ## measure the product on real tables; needs ROUTER_ML_OUTCOMES; half an hour on two cores
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/quality/run.py

lock: install ## resolve the dependencies again
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
		--generate-hashes --no-header --quiet -o requirements/all.lock
	$(BIN)/uv pip compile pyproject.toml --extra serving --universal --python-version 3.11 \
		--generate-hashes --no-header --quiet -o requirements/serving.lock
	# Of the images: the same versions as in all.lock, which are those that are tested.
	$(BIN)/uv pip compile pyproject.toml --extra serving --extra postgres --extra redis --extra objects --extra otel \
		--constraints requirements/all.lock --universal --python-version 3.11 \
		--generate-hashes --no-header --quiet -o requirements/deploy.lock
	$(BIN)/uv pip compile pyproject.toml --extra training --extra postgres --extra objects --extra dask \
		--constraints requirements/all.lock --universal --python-version 3.11 \
		--generate-hashes --no-header --quiet -o requirements/training.lock
	echo 'hatchling>=1.27' | $(BIN)/uv pip compile - --constraints requirements/all.lock --universal --python-version 3.11 \
		--generate-hashes --no-header --quiet -o requirements/build.lock

clean: ## delete .venv, caches and what the demo wrote
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage build dist demo-output
	find router_ml training serving tests benchmarks notebooks -name __pycache__ -type d -prune -exec rm -rf {} +
