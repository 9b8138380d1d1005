.PHONY: all run test check schemas clean

all: .venv/.ready

# torch goes first and pinned: a range would let a newer release in, which on Linux brings gigabytes of CUDA packages.
.venv/.ready: pyproject.toml
	python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --upgrade pip
	.venv/bin/python -m pip install --quiet "torch==2.13.0" -e ".[dev]"
	touch $@
