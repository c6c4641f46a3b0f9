"""From the results of all rounds to medians, ratios and Markdown."""

from dataclasses import dataclass
from statistics import median

import work

NAMES = {
    "kvdb-1": "kvDB, 1 replica",
    "kvdb-2": "kvDB, 2 replicas",
    "nginx": "nginx",
    "nginx-nopush": "nginx, tcp_nopush",
    "hyper-302": "hyper, constant 302",
    "loopback": "loopback alone",
    "fio": "disk, by fio",
    "cat": "disk, by cat",
}
MB, OPS = "mb_per_second", "ops_per_second"
MIB = 1 << 20


@dataclass(frozen=True)
class Ask:
    """What one figure is to be of another one. Without another system it is to be so much itself."""

    row: str
    system: str
    field: str
    other: str
    least: float


ASKED = (
    Ask("put 1 GiB × 1", "kvdb-1", MB, "nginx", 2.0),
    Ask("put 1 GiB × 1", "kvdb-1", MB, "fio", 0.4),
    Ask("put 64 MiB × 2", "kvdb-1", MB, "nginx", 3.0),
    Ask("put 64 MiB × 2", "kvdb-2", MB, "nginx", 1.0),
    Ask("put 1 MiB × 8", "kvdb-1", MB, "nginx", 1.0),
    Ask("get hot 1 GiB × 1", "kvdb-1", MB, "nginx", 1.0),
    Ask("get hot 1 GiB × 1", "kvdb-1", MB, "nginx-nopush", 1.0),
    Ask("get hot 64 MiB × 2", "kvdb-1", MB, "nginx", 1.0),
    Ask("get hot 64 MiB × 2", "kvdb-1", MB, "nginx-nopush", 1.0),
    Ask("get hot 1 MiB × 8", "kvdb-1", MB, "nginx", 0.8),
    Ask("get hot 1 MiB × 8", "kvdb-1", MB, "nginx-nopush", 0.8),
    Ask("get cold 1 GiB × 1", "kvdb-1", MB, "cat", 0.9),
    Ask(work.LOOKUP, "kvdb-1", OPS, "", 100_000),
    Ask(work.LOOKUP, "kvdb-1", OPS, "hyper-302", 0.8),
    Ask(work.CYCLE, "kvdb-1", OPS, "nginx", 1.3),
)
# Most resident memory in any row, in MiB. The master's is beside its cache of 64 MiB.
MOST_MEMORY = (("volume", 64), ("master", 64 + 64))


def number(value, unit=""):
    """A figure for people: three digits are enough."""
    if value is None:
        return ""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}{unit}"


class Results:
    """The records of all rounds, by row and system."""

    def __init__(self, records):
        self.records = records

    def of(self, row, system):
        return [r for r in self.records if r["row"] == row and r["system"] == system]

    def systems(self, row):
        """Who was measured in a row, in the order of the names above."""
        return [s for s in NAMES if self.of(row, s)]

    def median(self, row, system, field):
        """Of all rounds; None if it was not measured."""
        values = [r[field] for r in self.of(row, system) if r.get(field) is not None]
        return median(values) if values else None

    def by_round(self, row, system, field):
        return {r["round"]: r[field] for r in self.of(row, system)}

    def costs(self, row, system):
        """CPU seconds and peak bytes of each process, by its name: medians."""
        processes = [r["processes"] for r in self.of(row, system)]
        one = lambda name, figure: median(p[name][figure] for p in processes)
        return {name: (one(name, "cpu_seconds"), one(name, "peak_bytes")) for name in processes[0]}

    def most_memory(self, kind):
        """The most that any process of a kind ever took, in MiB, and in which row; (None, None) if there was none."""
        def of(record):
            return [p["peak_bytes"] for name, p in record["processes"].items() if name.split(" ")[0] == kind]
        peaks = [(max(of(r)) / MIB, f"{r['row']}, {NAMES[r['system']]}") for r in self.records if of(r)]
        return max(peaks, default=(None, None))


def ratios(results):
    """Lines of the first table: what, kvDB's figure, the other's, ratio, its least and greatest in a round, asked, whether it holds."""
    lines = []
    for ask in ASKED:
        own = results.median(ask.row, ask.system, ask.field)
        other = results.median(ask.row, ask.other, ask.field) if ask.other else 1
        if own is None or other is None:
            continue
        unit = " MB/s" if ask.field == MB else " /s"
        what = ask.row + (", 2 replicas" if ask.system == "kvdb-2" else "")
        owns = results.by_round(ask.row, ask.system, ask.field)
        if ask.other:
            others = results.by_round(ask.row, ask.other, ask.field)
            each = [owns[n] / others[n] for n in owns if n in others]
            compared, ratio = f"{NAMES[ask.other]}: {number(other)}{unit}", own / other
            shown, spread, asked = f"{ratio:.2f}", f"{min(each):.2f} to {max(each):.2f}", f"{ask.least:.1f}"
        else:
            ratio = own
            compared, shown, asked = "", "", f"{number(ask.least)}{unit}"
            spread = f"{number(min(owns.values()))} to {number(max(owns.values()))}"
        lines.append((what, number(own) + unit, compared, shown, spread, asked, "yes" if ratio >= ask.least else "**no**"))
    for kind, most in MOST_MEMORY:
        peak, where = results.most_memory(kind)
        if peak is not None:
            lines.append((f"memory of a {kind}, at most", number(peak, " MiB"), f"in: {where}", "", "", f"{most} MiB", "yes" if peak <= most else "**no**"))
    return lines


def markdown(head, lines):
    """A table; all columns but the first to the right, if `head` says so by an ending colon."""
    titles = [h.rstrip(":") for h in head]
    rule = ["---:" if h.endswith(":") else "---" for h in head]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (titles, rule, *lines))


def ratio_table(results):
    return markdown(("work", "kvDB:", "compared with", "ratio:", "in the rounds:", "asked:", "holds"), ratios(results))


def all_table(results, names):
    """Every row and system."""
    lines = []
    for row in names:
        for system in results.systems(row):
            figures = [results.median(row, system, f) for f in (OPS, MB, "p50_ms", "p99_ms")]
            # A few bytes each: their sum says nothing.
            if "16 B" in row or row == work.LOOKUP:
                figures[1] = None
            costs = results.costs(row, system)
            cpu = ", ".join(f"{name} {number(c)}" for name, (c, _) in costs.items())
            memory = ", ".join(f"{name} {number(p / MIB)}" for name, (_, p) in costs.items())
            took = results.median(row, system, "seconds")
            lines.append((row, NAMES[system], *map(number, figures), number(took), cpu, memory))
    return markdown(("work", "system", "ops/s:", "MB/s:", "p50 ms:", "p99 ms:", "s:", "CPU s", "peak MiB"), lines)
