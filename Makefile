# Each command sets up .venv first, once. PYTHON names another Python: make PYTHON=python3.12 lab
PYTHON ?= python3
SETUP = @$(PYTHON) vitcourse/lab/bootstrap.py
BIN = .venv/bin
BOTH = -n 2 --dist loadfile

.PHONY: lab test notebooks throughput
test notebooks: export OMP_NUM_THREADS = 1

lab:         ; $(SETUP) && $(BIN)/vitcourse lab
test:        ; $(SETUP) test && $(BIN)/pytest $(BOTH) tests && $(BIN)/pytest $(BOTH) --nbval notebooks
notebooks:   ; $(SETUP) test && $(BIN)/python -m vitcourse.lab.notebooks
throughput:  ; $(SETUP) test && $(BIN)/python benchmarks/throughput.py
