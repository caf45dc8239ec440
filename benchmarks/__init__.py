"""charrnn measured against plain PyTorch, and against what this machine can do: `make bench`. See `benchmarks.bench`."""
