#!/bin/sh
# Two processes on this host: sh examples/torchrun.sh TEXT [OPTIONS of charrnn train]. One that dies is started again, and the run goes on.
exec torchrun --standalone --nproc-per-node "${PROCESSES:-2}" --max-restarts 3 -m charrnn train "$@"
