# Each command sets up .venv first, once. PYTHON names another Python: make PYTHON=python3.12 lab
PYTHON ?= python3
SETUP = @$(PYTHON) vitcourse/lab/bootstrap.py
BIN = .venv/bin
BOTH = -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: lab test browser slides book claims train notebooks throughput gpu gpu-tests gpu-speed gpu-cifar10 gpu-beside gpu-withstands gpu-longer
test browser notebooks: export OMP_NUM_THREADS = 1
browser: export VITCOURSE_BROWSER = required

lab:         ; $(SETUP) && $(BIN)/vitcourse lab
test:        ; $(SETUP) test && $(BIN)/pytest $(BOTH) tests --ignore=tests/browser && $(BIN)/pytest $(BOTH) --nbval notebooks
browser:     ; $(SETUP) browser && $(BIN)/python -m tests.browser.chromium && $(BIN)/pytest tests/browser
notebooks:   ; $(SETUP) test && $(BIN)/python -m vitcourse.lab.notebooks
slides:      ; $(SETUP) && $(BIN)/vitcourse slides
book:        ; $(SETUP) && $(BIN)/vitcourse book
claims:      ; $(SETUP) test && $(BIN)/python -m benchmarks.claims
train:       ; $(SETUP) && $(BIN)/vitcourse train
throughput:  ; $(SETUP) test && $(BIN)/python -m benchmarks.throughput
gpu:         gpu-tests gpu-speed gpu-cifar10 gpu-beside gpu-withstands gpu-longer
gpu-tests:   ; $(SETUP) test && $(BIN)/pytest -m gpu tests
gpu-speed:   ; $(SETUP) test && $(BIN)/python -m benchmarks.throughput && $(BIN)/python -m benchmarks.training
gpu-cifar10: ; $(SETUP) test && $(BIN)/python -m benchmarks.cifar10 --set compile=true
gpu-beside:  ; $(SETUP) test && $(BIN)/python -m benchmarks.beside others --set compile=true && $(BIN)/python -m benchmarks.beside without --set compile=true
gpu-withstands: ; $(SETUP) test && $(BIN)/python -m benchmarks.withstands needs && $(BIN)/python -m benchmarks.withstands disturbed
gpu-longer:  ; $(SETUP) test && $(BIN)/python -m benchmarks.longer without_labels && $(BIN)/python -m benchmarks.longer detection && $(BIN)/python -m benchmarks.longer restoration
