# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test bench docs clean

$(BIN)/python:
	$(PYTHON) -m venv .venv

$(STAMP)-%: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	@touch $@

demo: $(STAMP)-demo
	$(BIN)/python examples/glyphs.py demo/glyphs
	cd demo && ../$(BIN)/maquette create glyphs -o runs/glyphs --minutes 2.5 -n 52
	@echo "Open demo/runs/glyphs/pieces/001/sheet.png and the report named above."

test: $(STAMP)-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

# every benchmark writes benchmarks/results/<name>.json; `docs` puts the figures into the pages
bench: $(STAMP)-test
	for name in startup prepare overhead resume images text chorales forms sampling; do $(BIN)/python benchmarks/$$name.py || exit 1; done

docs: $(STAMP)-test
	$(BIN)/python docs/tables.py

clean:
	rm -rf demo .pytest_cache .ruff_cache build
