"""What the old script did: every canvas of every manifest in a folder, one after another (or in THREADS).

    python3 benches/loop.py FOLDER BASE [THREADS]

BASE replaces the public address in the canvas URLs. Written for comparison; see benches/batch.rs.
"""
import json
import pathlib
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import requests

folder, base = sys.argv[1], sys.argv[2]
threads = int(sys.argv[3]) if len(sys.argv) > 3 else 1
urls = [
    canvas["@id"].replace("https://api.library.tamu.edu", base)
    for file in sorted(pathlib.Path(folder).rglob("*.json"))
    for sequence in json.loads(file.read_text())["sequences"]
    for canvas in sequence["canvases"]
]
started = time.monotonic()
with ThreadPoolExecutor(threads) as pool:
    good = sum(answer.ok for answer in pool.map(requests.get, urls))
used = resource.getrusage(resource.RUSAGE_SELF)
print(f"loop.py threads={threads} canvases={len(urls)} good={good} "
      f"wall={time.monotonic() - started:.2f}s cpu={used.ru_utime + used.ru_stime:.2f}s")
