# Start with `make demo` and `make test`. Both create .venv if it doesn't exist.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/ready
ZENML  := .venv-zenml
MLFLOW := .venv-mlflow

ADAPTER_GCP := $(ZENML)-gcp/bin/python -m pytest --numprocesses 2 --dist worksteal --quiet -m zenml tests/adapter

LIVE    = $(if $(LOCATION),--location "$(LOCATION)") $(if $(YES),--yes)

# The tests start hundreds of processes. Without cached bytecode, each would compile the package, and pytest every test.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test check format lowest docs release-check airflow kubeflow zenml-gcp mlflow-servers loaders histories container picture bench pins unmeasured record live record-live clean

help:     ## list the commands
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "vertex-registry needs Python 3.11 or later; name one: make $(or $(MAKECMDGOALS),test) PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Setting up $(VENV) (once) ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable . --group dev
	@touch $@

# ZenML has its own environments, because it has many dependencies and only its adapter needs it. One has today's Google
# SDK, and one has the versions that ZenML's own `zenml integration install gcp` installs. ZenML is named first, because
# pip resolves in this order. In the other order, it tries old versions of everything for many minutes.
$(ZENML)/ready $(ZENML)-gcp/ready: pyproject.toml | $(READY)
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@echo "Setting up $(@D) (once) ..."
	@$(@D)/bin/python -m pip install -qq --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(@D)/bin/python -m pip install -qq --disable-pip-version-check 'zenml[connectors-gcp,local]' --editable '.[zenml]' --group zenml
	@test $(@D) = $(ZENML) || ZENML_CONFIG_PATH=$(@D)/config ZENML_ANALYTICS_OPT_IN=false $(@D)/bin/zenml integration install gcp -y >$(@D)/log 2>&1 || { cat $(@D)/log; exit 1; }
	@touch $@

# MLflow has its own environment too, because it has more dependencies than everything else together.
$(MLFLOW)/ready: pyproject.toml | $(READY)
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@echo "Setting up $(@D) (once) ..."
	@$(@D)/bin/python -m pip install -qq --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(@D)/bin/python -m pip install -qq --disable-pip-version-check --editable '.[mlflow]' --group mlflow
	@touch $@

demo: $(READY)   ## train, register, promote and list real models, with no cloud account
	@$(BIN)/python examples/quickstart.py

# Each example in a document continues where the previous one ended, so one process runs them all.
test: $(READY) $(MLFLOW)/ready $(ZENML)/ready $(ZENML)-gcp/ready   ## run every test, with branch coverage
	@$(BIN)/python -m pytest --numprocesses 2 --cov --cov-report= --quiet tests
	@$(BIN)/python -m pytest --cov --cov-append --cov-report= --quiet README.md docs vertex_registry
	@$(MLFLOW)/bin/python -m pytest --numprocesses 2 --dist worksteal --cov --cov-append --cov-report= --quiet tests/mlflow_adapter
	@$(ZENML)/bin/python -m pytest --numprocesses 2 --dist worksteal --cov --cov-append --cov-report=term --cov-fail-under=95.5 --quiet -m zenml tests/adapter
	@$(ADAPTER_GCP) --deselect tests/adapter/test_guide.py::test_the_guide

check: $(READY) $(MLFLOW)/ready $(ZENML)/ready   ## run ruff, mypy, the import contracts and the guard of our English
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/mypy --python-executable $(MLFLOW)/bin/python vertex_registry/mlflow*.py vertex_registry/migration/*.py tests/mlflow_adapter/*.py
	@$(BIN)/mypy --python-executable $(ZENML)/bin/python vertex_registry/zenml.py tests/adapter/*.py
	@$(BIN)/lint-imports
	@$(BIN)/python -m tests.prose
	@$(BIN)/zensical build --strict

docs: $(READY)   ## build the documentation into site/, without a network; a warning or a dead link fails it
	@$(BIN)/zensical build --strict

format: $(READY)   ## format the code with ruff, and fix what it can fix
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format

# All dependencies of the client and the emulator, direct and indirect, are installed in their lowest versions. If a bound
# is missing, these tests fail, and pyproject.toml needs the bound. The tests' own dependencies are at the lowest version
# that pyproject.toml names, with today's indirect ones. Versions without a wheel are left out, because they need
# compilers. Cassettes and tests without credentials are left out: old versions encode `@` in a path differently, and
# look for a metadata server, which is blocked.
LOWEST := .venv-lowest
COMPILE = $(LOWEST)/bin/uv pip compile --quiet --resolution lowest --only-binary :all: --no-header --no-annotate pyproject.toml --extra storage

lowest:  ## run the tests with the lowest versions that pyproject.toml allows
	@test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	@$(LOWEST)/bin/python -m pip install -qq --disable-pip-version-check uv
	@$(COMPILE) | sed 's/==.*/==/; s/^/^/' >$(LOWEST)/needed.txt
	@$(COMPILE) --group test | grep -f $(LOWEST)/needed.txt | grep -v '^annotated-types==' >$(LOWEST)/constraints.txt  # pydantic needs a newer one than it says
	@$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST) --resolution lowest-direct --constraints $(LOWEST)/constraints.txt --editable '.[storage]' --group test
	@rm -rf $(LOWEST)/lib/python*/site-packages/tests  # google-cloud-resource-manager 1.3 installs its own there
	@$(LOWEST)/bin/python -m pytest --numprocesses 2 --quiet -m "not cassette" -k "not no_credentials" tests/behaviour tests/client

release-check:   ## build the packages and check each alone, on every Python that this machine has: [PYTHONS=...] [SELECT=...]
	@test -x .venv-release/bin/python || $(PYTHON) -m venv .venv-release
	@.venv-release/bin/python -m pip install -qq --disable-pip-version-check uv 'hatchling>=1.27'
	@.venv-release/bin/python -m tests.release $(PYTHONS:%=--python %) --select "$(or $(SELECT),grpc)"

# Both have a hundred dependencies, so each has its own environment.
airflow:   ## run the Airflow DAG in examples/ against the emulator, next to Google's operator
	@test -x .venv-airflow/bin/python || $(PYTHON) -m venv .venv-airflow
	@.venv-airflow/bin/python -m pip install -qq --disable-pip-version-check --editable '.[emulator]' apache-airflow apache-airflow-providers-google
	@.venv-airflow/bin/python examples/run_airflow.py

kubeflow:   ## compile the Kubeflow pipeline in examples/, and run its components against the emulator
	@test -x .venv-kubeflow/bin/python || $(PYTHON) -m venv .venv-kubeflow
	@.venv-kubeflow/bin/python -m pip install -qq --disable-pip-version-check --editable '.[emulator]' kfp google-cloud-pipeline-components
	@.venv-kubeflow/bin/python examples/run_kubeflow.py

# `make test` leaves out the guide in this environment, because its processes take as long as all other tests together.
zenml-gcp: $(ZENML)-gcp/ready   ## run the tests of the ZenML adapter with the Google SDK that ZenML itself installs
	@$(ADAPTER_GCP)

# The servers need little of what MLflow installs. MLflow 2.0 needs the oldest of it, and the others run with that too.
OLDER := 2.22.5 2.9.2 2.0.1

$(OLDER:%=$(MLFLOW)-%/ready): $(MLFLOW)-%/ready:
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@echo "Setting up $(@D) (once) ..."
	@$(@D)/bin/python -m pip install -qq --disable-pip-version-check mlflow-skinny==$* 'sqlalchemy<2' alembic 'flask<3' graphene querystring-parser gunicorn 'setuptools<80'
	@touch $@

mlflow-servers: $(MLFLOW)/ready $(OLDER:%=$(MLFLOW)-%/ready)   ## migrate from servers of MLflow 2, each filled by its own client
	@$(MLFLOW)/bin/python -m pytest --quiet tests/mlflow_adapter/older_servers.py

# `make test` skips tests whose library isn't installed. Here they fail.
loaders:   ## load models that torch, Keras, TensorFlow, XGBoost and scikit-learn wrote
	@test -x .venv-loaders/bin/python || $(PYTHON) -m venv .venv-loaders
	@.venv-loaders/bin/python -m pip install -qq --disable-pip-version-check --upgrade 'pip>=25.1'
	@.venv-loaders/bin/python -m pip install -qq --disable-pip-version-check --editable . --group loaders
	@EVERY_LIBRARY=1 .venv-loaders/bin/python -m pytest --quiet tests/client/test_loading.py

histories: $(READY)   ## run several processes against the emulator and check their results: [SECONDS=...] [SEED=...]
	@$(BIN)/python -m tests.histories --seconds $(or $(SECONDS),300) --seed $(or $(SEED),1)

container: $(READY)   ## check the Dockerfile, as far as that's possible without Docker
	@$(BIN)/python -m tests.container

picture: $(READY)   ## draw docs/architecture.svg from the import contracts
	@$(BIN)/python -m tests.picture

# The benchmarks have their own environment, because moto has many dependencies.
bench:   ## compare speed with Google's clients, moto and obstore, and write docs/performance.md: [QUICK=1] [ONLY=client]
	@test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python -m pip install -qq --disable-pip-version-check --upgrade 'pip>=25.1'
	@.venv-bench/bin/python -m pip install -qq --disable-pip-version-check --editable '.[storage,cli,emulator]' --group bench
	@.venv-bench/bin/python -m benchmarks $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY))

pins: $(READY)   ## list the public names, options and fields in tests/pins.txt, so a change shows in review
	@$(BIN)/python -m tests.pins

unmeasured: $(READY)   ## choose the tests in which coverage is measured, and list the others in tests/unmeasured.txt
	@$(BIN)/python -m tests.unmeasured

record: $(READY)   ## record the cassettes against the emulator
	@$(BIN)/python -m tests.cassettes.recorder

live: $(READY)   ## run the tests against the real Vertex AI: PROJECT=... BUCKET=... [LOCATION=...] [YES=1]
	@$(BIN)/python -m tests.live run "$(PROJECT)" "$(BUCKET)" $(LIVE)

record-live: $(READY)   ## record the cassettes against the real Vertex AI, with the same options
	@$(BIN)/python -m tests.live record "$(PROJECT)" "$(BUCKET)" $(LIVE)

clean:   ## remove .venv and every cache
	rm -rf site $(VENV) $(MLFLOW) $(OLDER:%=$(MLFLOW)-%) $(ZENML) $(ZENML)-gcp .venv-lowest .venv-loaders .venv-bench .venv-release .venv-airflow .venv-kubeflow .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage*
