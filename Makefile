# demo, test and check each make .venv and install what they need on a fresh machine.
PYTHON ?= python3
BIN := .venv/bin

# a file stays in one worker, with its servers and small runs; a thread each, since there are two cores
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-fast check same results study bench support clean

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[study,test,check]'
	touch $@

demo: .venv/.installed
	$(BIN)/smooth-attention study shapes --preset demo --output out/demo

test: .venv/.installed
	$(PYTEST)

test-fast: .venv/.installed
	$(PYTEST) -m "not slow"

check: .venv/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py tests/test_names.py tests/test_package.py

# whether this checkout gives what an earlier commit gave, on generated images; fixtures are made once, in WORK, which is
# outside the repository: make same BEFORE=29b3452 [WORK=DIR] [ONLY='report*']; 4 minutes on one core, fixtures another 7
same: .venv/.installed
	@test -n "$(BEFORE)" || { echo "say which commit to compare with: make same BEFORE=29b3452"; exit 2; }
	$(BIN)/python benchmarks/same.py $(BEFORE) $(if $(WORK),--work $(WORK)) $(if $(ONLY),--only '$(ONLY)')

# the table of single runs in docs/results.md; needs ../shared/data, takes about an hour on 2 cores
results: .venv/.installed
	$(BIN)/python benchmarks/real_images.py ../shared/data --output runs/results

# results/quick: does it help on flood and polyps; needs ../shared/data, takes about an hour on 2 cores
study: .venv/.installed
	$(BIN)/smooth-attention study ../shared/data/flood ../shared/data/polyps --preset quick --seeds 3 --epochs 10 \
		--encoder-weights none --output runs/quick
	mkdir -p results/quick
	cp runs/quick/results.csv runs/quick/tables/*.md results/quick/

# docs/benchmarks: measured beside target, on 2 cores that do nothing else
bench: .venv/.installed
	$(BIN)/python benchmarks/op.py --output docs/benchmarks
	$(BIN)/python benchmarks/networks.py --output docs/benchmarks
	PYTHONPATH=tests $(BIN)/python benchmarks/looking.py

# docs/support.md: every network through the common checks; took 23 minutes on 2 cores beside other work
support: .venv/.installed
	PYTHONPATH=tests $(BIN)/python benchmarks/support.py

clean:
	rm -rf .venv out
