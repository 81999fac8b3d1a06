"""Benchmarks: the paper's tables and figures, speed, and calibration, on simulated or real plates.

Every result is made of jobs that are kept one by one, so that a benchmark that was stopped resumes. The labels of a
target source are read in one place, `coda.benchmark.scoring`, and for scores only.
"""
