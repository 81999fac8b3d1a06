"""What one large GPU does with this program: rates, feed, memory, and the cores it needs (docs/gpu_check.md).

It runs on a bare machine: `coda.benchmark.gpu_check.needs` lists every package that it imports.
"""
