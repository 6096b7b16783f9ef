#!/usr/bin/env python3
"""Draws processor time of a request as docs/processor-time.svg, from what compare.py and cache.py measured.

    python3 benches/compare.py --case 1k 32k        writes target/compare.json
    python3 benches/cache.py --case 1k 32k          writes target/cache.json
    python3 benches/chart.py [--compare FILE] [--cache FILE] [--out FILE]

A bar is the median of all rounds; all bars have one scale.
"""
import argparse
import html
import json
import pathlib
import statistics

ROOT = pathlib.Path(__file__).resolve().parent.parent
GROUPS = [("compare", "1k", "1 KiB passed through"), ("compare", "32k", "32 KiB passed through"),
          ("cache", "1k", "1 KiB from the cache"), ("cache", "32k", "32 KiB from the cache")]
NAMES = {"nginx": "nginx", "haproxy": "HAProxy", "varnish": "Varnish", "iiif-mender": "iiif-mender"}
WIDTH, LEFT, LINE, BAR = 720, 110, 22, 14
STYLE = """text { font: 13px sans-serif; fill: #1f2328 } .head { font-weight: bold } .bar { fill: #8c959f } .ours { fill: #0969da }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .bar { fill: #6e7681 } .ours { fill: #58a6ff } }"""


def medians(runs):
    """Microseconds of each program, in the order of `NAMES`."""
    known = {name.lower(): statistics.median(run["cpu_us"] for run in own) for name, own in runs.items()}
    return [(name, known[key]) for key, name in NAMES.items() if key in known]


def drawn(groups):
    lines, y = [], 24
    longest = max(value for _, bars in groups for _, value in bars)
    for title, bars in groups:
        lines.append(f'<text class="head" x="8" y="{y}">{html.escape(title)}</text>')
        for name, value in bars:
            y += LINE
            width = (WIDTH - LEFT - 80) * value / longest
            kind = "bar ours" if name == "iiif-mender" else "bar"
            lines += [f'<text x="{LEFT - 8}" y="{y}" text-anchor="end">{name}</text>',
                      f'<rect class="{kind}" x="{LEFT}" y="{y - 11}" width="{width:.0f}" height="{BAR}" rx="2"/>',
                      f'<text x="{LEFT + width + 8:.0f}" y="{y}">{value:.1f} µs</text>']
        y += LINE + 12
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y - 16}" role="img" '
            f'aria-label="Processor time of a request">\n<style>{STYLE}</style>\n' + "\n".join(lines) + "\n</svg>\n")


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--compare", type=pathlib.Path, default=ROOT / "target/compare.json")
    words.add_argument("--cache", type=pathlib.Path, default=ROOT / "target/cache.json")
    words.add_argument("--out", type=pathlib.Path, default=ROOT / "docs/processor-time.svg")
    args = words.parse_args()
    cases = {"compare": json.loads(args.compare.read_text())["cases"], "cache": json.loads(args.cache.read_text())["cases"]}
    groups = [(title, medians(cases[file][case]["runs"])) for file, case, title in GROUPS if case in cases[file]]
    args.out.write_text(drawn(groups))
    print(args.out)


if __name__ == "__main__":
    main()
