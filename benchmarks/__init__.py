"""Speed, measured side by side with peers in one process: `python -m benchmarks [name ...]`.

Each module `bench_NAME.py` here has a function `run() -> list[dict[str, Any]]`. A row is one thing measured: numbers
and short texts by column, and a list of numbers where a quantity was measured several times. The runner prints the
median of such a list, with its least and greatest value behind it.
"""
