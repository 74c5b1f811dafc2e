"""What every benchmark writes: times taken in turns, and beside them the machine, the versions, and all as JSON."""

from report.record import RESULTS, bundle_arguments, machine, of_checkout, write
from report.times import interleaved, node_times, ratio, summary

__all__ = [
    "RESULTS",
    "bundle_arguments",
    "interleaved",
    "machine",
    "node_times",
    "of_checkout",
    "ratio",
    "summary",
    "write",
]
