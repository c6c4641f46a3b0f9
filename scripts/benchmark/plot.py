"""The plot: for each row of work a bar for each system, as long as its rate is of the fastest one's."""

from xml.sax.saxutils import escape

import table
import work

WIDTH, LEFT, RIGHT = 920, 190, 250
BAR, GAP, MARGIN = 13, 9, 20
COLOURS = {
    "kvdb-1": "#1f6fb4",
    "kvdb-2": "#7db3dd",
    "nginx": "#3a9a4b",
    "nginx-nopush": "#97cf9f",
    "hyper-302": "#8a63b0",
    "loopback": "#c4c4c4",
    "fio": "#c4c4c4",
    "cat": "#c4c4c4",
}


def in_bytes(row):
    """Whether a row is told in MB/s: values of a few bytes are counted instead."""
    return "16 B" not in row and row != work.LOOKUP


def draw(results, names, title):
    """The SVG of all rows that have figures."""
    parts, y = [], MARGIN

    def text(x, y, words, more=""):
        parts.append(f'<text x="{x}" y="{y}" {more}>{escape(words)}</text>')

    text(MARGIN, y + 6, title, 'font-weight="bold"')
    y += 24
    for row in names:
        field, unit = (table.MB, "MB/s") if in_bytes(row) else (table.OPS, "/s")
        rates = {s: results.median(row, s, field) for s in results.systems(row)}
        rates = {s: rate for s, rate in rates.items() if rate is not None}
        if not rates:
            continue
        most = max(rates.values())
        text(LEFT - 10, y + BAR - 2, row, 'text-anchor="end" font-weight="bold"')
        for system, rate in rates.items():
            length = max(1, (WIDTH - LEFT - RIGHT) * rate / most)
            parts.append(f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR - 2}" fill="{COLOURS[system]}"/>')
            text(f"{LEFT + length + 6:.1f}", y + BAR - 3, f"{table.number(rate)} {unit}  {table.NAMES[system]}")
            y += BAR
        y += GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + MARGIN}" font-family="sans-serif" font-size="11">\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n")
