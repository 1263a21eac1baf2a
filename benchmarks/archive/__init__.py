"""Archives measured: against plain loops, in memory, killed, on a cluster; and what many would cost."""
