"""How fast a model runs on this machine, beside what the machine could do at best.

`run_bench` measures in rounds: each round takes the machine's limits (read bandwidth, int8 products) and every workload
once, so that a slow minute of a shared machine meets limits and speeds alike. Reported are medians, their spread,
and of each the share of its limit that was reached. Two ideas come from elsewhere: the workloads' names and sizes from
llama-bench (prompt processing of 512, generation of 128 from an empty context), the limits from the
roofline model (Williams, Waterman and Patterson 2009).

Not covered: energy, several models at once, and traffic as a server sees it.
"""

from openherd.workshop.bench.report import Report
from openherd.workshop.bench.run import run_bench

__all__ = ["Report", "run_bench"]
