#!/bin/sh
# potqat and PyTorch train the same models on this CPU, in turn: time, memory, and what quantization adds.
# Writes results/MACHINE.csv and .svg beside this file and prints a table; stopped, it goes on where it was. See README.md.
# usage: bench/peers.sh [--quick] [--precision P] [--weights qat|plain] [--threads N] [--iters N] [--runs N]
#                       [--out FOLDER] [SHAPE ...]
# PEER names the PyTorch script, PEER_PYTHON its Python (default: python3), POTQAT the program (default: build/, brought
# up to date first), THROUGH a command that each measurement is run by.
set -eu
cd "$(dirname "$0")/.."
if [ -z "${POTQAT-}" ]; then
    ninja -C build src/cli/potqat >&2
    export POTQAT=build/src/cli/potqat
fi
exec python3 bench/peers.py "$@"
