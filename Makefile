# `make run` and `make test` set themselves up: all they need is make and Python 3.11, 3.12 or 3.13.

PYTHON ?= python3
EXPERIMENT ?= $(if $(filter-out 0,$(FAST)),fast,demo)

BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help run site slides results compare trust vulnerabilities resolve lock test format lab refresh train census audit cards checkpoints clean

help: ## Show this list
	@echo "make TARGET"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{printf "%-17s %s\n", $$1, $$2}'

run: $(READY) ## Run the notebooks: EXPERIMENT=demo (a file of params/), or MODEL=folder-or-hub-id, into build/ (JOBS=2 at a time; FAST=1: in minutes)
	@$(BIN)/rdlib run $(if $(JOBS),--jobs '$(JOBS)' )$(if $(MODEL),--model '$(MODEL)',$(EXPERIMENT))

site: run .venv/.site ## Make a site of EXPERIMENT, static files in build/demo to copy to any web server
	@$(BIN)/rdlib site '$(EXPERIMENT)'

slides: run ## Make slides of EXPERIMENT, build/demo/slides.html, from key figures, answers and cells tagged slide
	@$(BIN)/rdlib slides '$(EXPERIMENT)'

compare: $(READY) ## Put two experiments side by side: A=demo B=llama-3.2-1b (names below build/, or folders)
	$(if $(and $(A),$(B)),,$(error Say which two: make compare A=demo B=llama-3.2-1b))
	@$(BIN)/rdlib compare '$(A)' '$(B)'

results: $(READY) ## Keep the results of EXPERIMENT in the package, after make run: EXPERIMENT=smollm2-135m
	@$(BIN)/rdlib keep '$(EXPERIMENT)'

# One process a core and one more, each on one thread; a file stays in one process, a notebook in one kernel.
ONE_THREAD := OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1
EVERY_CORE := -n auto --dist loadfile --no-loadscope-reorder
NBVAL := --nbval --nbval-current-env --nbval-cell-timeout 3600 --nbval-kernel-startup-timeout 600

test: $(READY) ## Check the code, run the unit tests, and run every notebook against its committed outputs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(ONE_THREAD) $(BIN)/python -m pytest tests notebooks $(NBVAL) $(EVERY_CORE) --durations=10

# A round tries twenty times as much as `make test` does of these tests, with random numbers of its own.
ROUNDS ?= 10
trust: SEED := $(or $(SEED),$(shell date +%s))
trust: $(READY) ## Try for an hour to break what the tests say: ROUNDS=10; SEED=... (of a round that was printed) goes on there
	@for seed in $$(seq $(SEED) $$(($(SEED) + $(ROUNDS) - 1))); do \
	    echo "SEED=$$seed, of rounds up to $$(($(SEED) + $(ROUNDS) - 1))"; \
	    SEED=$$seed EXAMPLES=5000 MUTATIONS=2500 KILLS=50 $(BIN)/python -m pytest -q $(EVERY_CORE) \
	        tests/test_properties.py tests/test_fuzz.py tests/test_faults.py || exit 1; done

vulnerabilities: $(READY) .venv-audit/.ready ## Check the pinned packages for known vulnerabilities (asks PyPI's advisory service)
	$(BIN)/python -m pip check
	.venv-audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

COMPILE := .venv-audit/bin/uv pip compile --quiet --extra test --constraint constraints.txt

resolve: .venv-audit/.ready ## Find a set of packages that fit together on Python 3.11, 3.12 and 3.13 each
	@mkdir -p build
	@for python in 3.11.9 3.12 3.13; do \
	    $(COMPILE) --python-version $$python --output-file build/python-$$python.txt pyproject.toml || exit 1; \
	    echo "Python $$python: $$(grep -c == build/python-$$python.txt) packages"; done

lock: $(READY) .venv-audit/.ready ## Write build/requirements.lock: every package with the hashes of its files
	@mkdir -p build
	$(COMPILE) --python $(BIN)/python --generate-hashes --output-file build/requirements.lock pyproject.toml

format: $(READY) ## Format the code as `make test` wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lab: $(READY) ## Open the notebooks in JupyterLab
	$(BIN)/python -m jupyterlab notebooks/index.ipynb

refresh: $(READY) ## Execute the committed notebooks again, in place (NOTEBOOK=02_scalar_rd for one of them)
	$(BIN)/python -m rdlib.runs.notebook $(NOTEBOOK)

train: $(READY) ## Train the embedded model again: CORPUS=folder OUT=folder ARGS="--passes file.txt=5 ..."
	$(if $(and $(CORPUS),$(OUT)),,$(error Say where text and model are: make train CORPUS=folder OUT=folder ARGS=...))
	$(BIN)/python -m rdlib.tools.train $(CORPUS) $(OUT) $(ARGS)

census: $(READY) ## Measure every tensor of MODEL into OUT (default: build/census; ARGS="--cluster tcp://...")
	$(if $(MODEL),,$(error Say which model: make census MODEL=folder-or-hub-id OUT=folder))
	$(BIN)/rdlib census '$(MODEL)' '$(or $(OUT),build/census)' $(ARGS)

audit: $(READY) ## Compare FILES="one.gguf two" with MODEL, which they were made of, into OUT (default: build/audit)
	$(if $(and $(MODEL),$(FILES)),,$(error Say what to compare: make audit MODEL=folder-or-hub-id FILES="one.gguf two"))
	@$(BIN)/rdlib audit '$(MODEL)' $(FILES) --out '$(or $(OUT),build/audit)' $(ARGS)

# Files of the small model by other packages, and of a real one in llama.cpp's types; libgguf writes both, in some minutes.
OF_SMALL := Q2_K Q4_K Q6_K IQ4_XS Q8_0
OF_REAL := Q2_K Q3_K Q4_K Q5_K Q6_K IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S IQ4_XS
cards: $(READY) ## Audit files of the two models of the reference again, and keep tables and cards (hours)
	for type in $(OF_SMALL); do \
	    $(BIN)/python -m rdlib.tools.producers.llama_cpp rdlib/assets/model build/small-$$type.gguf $$type || exit 1; done
	$(BIN)/rdlib audit embedded auto-gptq auto-gptq-act-order autoawq gptqmodel build/small-*.gguf \
	    --out build/audit-embedded --run --tokens 4096 --text evaluation --calibration sample
	$(BIN)/python -m rdlib.audit.kept build/audit-embedded embedded
	for type in $(OF_REAL); do \
	    $(BIN)/python -m rdlib.tools.producers.requantize smollm2-135m build/SmolLM2-135M-Instruct.$$type.gguf $$type || exit 1; done
	$(BIN)/rdlib audit smollm2-135m build/SmolLM2-135M-Instruct.*.gguf \
	    --out build/audit-smollm2-135m --run --tokens 2048
	$(BIN)/python -m rdlib.audit.kept build/audit-smollm2-135m smollm2-135m

# Matrix products sum in one order on every x86 processor that has AVX2.
checkpoints: export ATEN_CPU_CAPABILITY = avx2
checkpoints: export ONEDNN_MAX_CPU_ISA = AVX2
checkpoints: export MKL_CBWR = AVX2
checkpoints: export OMP_NUM_THREADS = 1
checkpoints: export GPTQMODEL_CPU_WORKERS = 2
checkpoints: export HF_HUB_OFFLINE = 1
checkpoints: CT_0_14 = PYTHONPATH=build/compressed-tensors-0.14 .venv-producers/bin/python
checkpoints: $(READY) .venv-legacy/.ready .venv-producers/.ready build/compressed-tensors-0.14 build/modelopt-0.47 ## Make the quantized checkpoints again and compare (REPLACE=yes: commit these)
	rm -rf build/checkpoints
	.venv-legacy/bin/python -m rdlib.tools.producers.auto_gptq build/checkpoints
	.venv-producers/bin/python -m rdlib.tools.producers.gptqmodel build/checkpoints
	.venv-producers/bin/python -m rdlib.tools.producers.autoawq build/checkpoints
	.venv-producers/bin/python -m rdlib.tools.producers.compressed_tensors build/checkpoints
	$(CT_0_14) -m rdlib.tools.producers.compressed_tensors_legacy build/checkpoints
	.venv-producers/bin/python -m rdlib.tools.producers.mlx_lm build/checkpoints
	.venv-producers/bin/python -m rdlib.tools.producers.exl3 build/checkpoints
	.venv-producers/bin/python -m rdlib.tools.producers.hqq build/checkpoints
	PYTHONPATH=build/modelopt-0.47 .venv-producers/bin/python -m rdlib.tools.producers.modelopt build/checkpoints
	$(BIN)/python -m rdlib.tools.producers.bitsandbytes build/checkpoints
	$(BIN)/python -m rdlib.tools.producers.finegrained_fp8 build/checkpoints
	$(BIN)/python -m rdlib.tools.producers.compare build/checkpoints $(if $(REPLACE),--replace)
	for environment in .venv-legacy .venv-producers; do \
	    $$environment/bin/python -m pytest -q tests/test_checkpoints_direct.py || exit 1; done
	PYTHONPATH=build/modelopt-0.47 .venv-producers/bin/python -m pytest -q tests/test_checkpoints_direct.py -k modelopt
	$(CT_0_14) -m pytest -q tests/test_checkpoints_direct.py -k compressed_tensors_legacy

clean: ## Remove the results of EXPERIMENT and all caches, but not .venv
	rm -rf build/$(EXPERIMENT) .pytest_cache .ruff_cache .hypothesis rdlib.egg-info
	find rdlib tests notebooks -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf

# The environment: made once, brought up to date when what it depends on has changed.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v < (3, 14) or sys.exit( \
	    "rdlib needs Python 3.11, 3.12 or 3.13, but $(PYTHON) is %d.%d: name another, as in make PYTHON=python3.11" % v)'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv
	@echo "Setting up .venv: about 2 GB, a few minutes"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[test]'
	@echo "Compiling the loops of all quantizers: about a minute"
	@$(BIN)/python -W ignore tests/digits.py >/dev/null
	@touch $@

# The API reference is made by a package that nothing else needs.
.venv/.site: $(READY)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[site]'
	@touch $@

.venv-audit/.ready:
	@$(PYTHON) -m venv .venv-audit
	@.venv-audit/bin/python -m pip install -qq --disable-pip-version-check pip-audit uv
	@touch $@

# Environments of the packages that quantize; only `make checkpoints` needs them.
.venv-legacy/.ready: requirements-legacy.txt
	@$(PYTHON) -m venv .venv-legacy
	@echo "Setting up .venv-legacy: about 2 GB, a few minutes"
	@.venv-legacy/bin/python -m pip install -qq --disable-pip-version-check -r requirements-legacy.txt
	@touch $@

build/compressed-tensors-0.14: | .venv-producers/.ready
	.venv-producers/bin/python -m pip install -qq --disable-pip-version-check --no-deps --target $@ compressed-tensors==0.14.0

build/modelopt-0.47: | .venv-producers/.ready
	.venv-producers/bin/python -m pip install -qq --disable-pip-version-check --no-deps --target $@ nvidia-modelopt==0.47.0 \
	    omegaconf==2.4.0 antlr4-python3-runtime==4.9.3 pulp==3.3.2 nvidia-ml-py==13.615.71 ninja==1.13.2

.venv-producers/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -m venv .venv-producers
	@echo "Setting up .venv-producers: about 4 GB, some minutes"
	@.venv-producers/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[test,producers]'
	@touch $@
