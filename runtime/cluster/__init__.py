"""Jobs shared out to workers, which die, and are replaced: processes of this machine, or actors of a Ray cluster.

Begin with `pool.py`. What the jobs are, it does not know.
"""
