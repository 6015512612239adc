# The verbs of this project; `just` lists them. CI runs .ci/run, which is `check` and `test`.

default:
    @just --list

# Style, types and who may import whom
check:
    uv run ruff check
    uv run ruff format --check
    uv run mypy
    uv run lint-imports

# All tests; real photographs too where SAMREF_TEST_DATA names their folder
test *ARGS:
    uv run pytest -n 3 {{ARGS}}

# For every save: what needs neither Ray nor a browser nor root, and no test of seconds
test-fast *ARGS:
    uv run pytest -n 3 -m "not ray and not browser and not root and not slow" {{ARGS}}

# The first sweep of the README
quickstart:
    uv run samref-sweep sweeps/quickstart.yaml

# Golden files, after a change that is meant to change them
golden:
    uv run python tests/golden/regenerate_ids.py
    uv run python tests/golden/regenerate_clicks.py
    uv run python tests/golden/regenerate_loss_curve.py
    uv run python tests/golden/regenerate_tables.py

# docs/settings.md, and the list of files in docs/architecture.md, from the code
docs:
    COLUMNS=100 uv run python docs/generate.py
