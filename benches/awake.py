"""Keeps cores awake while latency is measured.

A virtual core that has nothing to do is taken away, and takes 50-100 µs to come back: more than a proxy needs for a
request, and once for each message that somebody waits for. So a process of the lowest kind (SCHED_IDLE) turns in
circles on each core; whoever wants the core has it at once.
"""
import contextlib
import subprocess
import sys

CIRCLES = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
while True: pass
"""


@contextlib.contextmanager
def awake(*cores):
    circling = [subprocess.Popen([sys.executable, "-c", CIRCLES, core]) for core in cores]
    try:
        yield
    finally:
        for process in circling:
            process.kill()
            process.wait()
