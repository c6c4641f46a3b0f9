"""`scripts/bench`: see there."""

import argparse
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import xml.etree.ElementTree

import facts
import plot
import sample
import table
import work
from servers import Broken

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGE = os.path.join(ROOT, "docs/benchmarks.md")
PICTURE = os.path.join(ROOT, "docs/benchmarks.svg")
BEGIN, END = "<!-- scripts/bench writes from here -->\n", "<!-- to here -->\n"


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures kvDB beside nginx and the limits of disk and loopback.")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often all is measured; medians count (default 3)")
    parser.add_argument("--dir", metavar="DIR", help="where all data lie while it runs, on the disk to measure (default: target/bench)")
    parser.add_argument("--only", type=re.compile, default=re.compile(""), metavar="REGEX", help="only rows whose name matches, such as 'put|lookup'")
    parser.add_argument("--smoke", action="store_true", help="next to nothing of everything, once, in seconds: only to see that it works")
    parser.add_argument("--programs", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--results", required=True, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error("--rounds must be at least 1")
    return args


def say(words):
    print(f"== {words}", file=sys.stderr, flush=True)


def measure(args, plan, directory):
    """All rounds; gives their records, which are also in a file of JSON lines."""
    can_drop = sample.drop_page_cache()
    if not can_drop:
        print("\n!!!! SKIPPED: reads from a cold disk: only root can drop the page cache\n", file=sys.stderr)
    path = os.path.join(args.results, time.strftime("%Y%m%dT%H%M%SZ.jsonl", time.gmtime()))
    records = []
    with open(path, "w") as out:
        def record(figures):
            records.append(figures)
            print(json.dumps(figures, ensure_ascii=False), file=out, flush=True)
            rates = [f"{table.number(figures[f])} {unit}" for f, unit in ((table.OPS, "/s"), (table.MB, "MB/s")) if figures[f]]
            say(f"{figures['round']}: {figures['row']}, {table.NAMES[figures['system']]}: {', '.join(rates)}")
        for number in range(1, 1 + (1 if args.smoke else args.rounds)):
            work.Round(number, plan, args.programs, directory, args.only.search, record, can_drop).run()
    say(f"all figures are in {os.path.relpath(path, ROOT)}")
    return records, can_drop


def check_whole(results, plan, can_drop):
    """That no row and no comparison is missing, if nothing was left out on purpose."""
    due = [row for row in work.rows(plan) if can_drop or "cold" not in row]
    missing = [row for row in due if not results.systems(row)]
    asked = [ask for ask in table.ASKED if can_drop or "cold" not in ask.row]
    lines = table.ratios(results)
    if missing or len(lines) != len(asked) + len(table.MOST_MEMORY):
        raise Broken(f"not all was measured: rows without figures {missing}, {len(lines)} comparisons")


def write(page_part, picture):
    """Replaces the generated part of the page, and the plot."""
    with open(PAGE) as f:
        page = f.read()
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    with open(PAGE, "w") as f:
        f.write(f"{before}{BEGIN}\n{page_part}\n{END}{after}")
    with open(PICTURE, "w") as f:
        f.write(picture)


def main():
    args = arguments()
    plan = work.SMOKE if args.smoke else work.WHOLE
    names = work.rows(plan)
    if not any(map(args.only.search, names)):
        raise Broken(f"--only matches none of: {', '.join(names)}")
    os.makedirs(args.results, exist_ok=True)
    above = os.path.abspath(args.dir or args.results)
    if shutil.disk_usage(above).free < plan.disk_bytes:
        raise Broken(f"{plan.disk_bytes / 1e9:.0f} GB of free disk are needed; choose another place with --dir")
    directory = tempfile.mkdtemp(prefix="kvdb-bench-", dir=above)
    try:
        about = facts.told(directory, 1 if args.smoke else args.rounds)
        records, can_drop = measure(args, plan, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    results = table.Results(records)
    ratios, everything = table.ratio_table(results), table.all_table(results, names)
    picture = plot.draw(results, names, "Medians; each bar beside the fastest of its row")
    xml.etree.ElementTree.fromstring(picture)
    if not args.smoke:
        print(f"{about}\n\n{ratios}\n{everything}")
    if args.only.pattern:
        return
    check_whole(results, plan, can_drop)
    if args.smoke:
        say(f"everything works: {len(records)} measurements, of which the figures say nothing")
    else:
        write(f"{about}\n\n{ratios}\n![The same as bars](benchmarks.svg)\n\n### All figures\n\n{everything}", picture)
        say("written: docs/benchmarks.md, docs/benchmarks.svg")


# The stop of a service or a job ends it as ^C does: with its servers stopped and its data removed.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
try:
    main()
except Broken as broken:
    sys.exit(f"!! {broken}")
except KeyboardInterrupt:
    sys.exit(130)
