"""What the figures hold for: the machine, the file system and the versions."""

import os
import platform
import subprocess
import time

from servers import nginx_version


def first_line(path, start, otherwise):
    """What follows the colon in the first line of a file that starts so."""
    try:
        with open(path) as f:
            return next((line.split(":", 1)[1].strip() for line in f if line.startswith(start)), otherwise)
    except OSError:
        return otherwise


def congestion_control():
    """What sockets get for which nobody chose another."""
    try:
        with open("/proc/sys/net/ipv4/tcp_congestion_control") as f:
            return f.read().strip()
    except OSError:
        return "unknown"


def file_system(directory):
    """The type of the file system that a directory is on."""
    with open("/proc/mounts") as f:
        mounts = [line.split()[1:3] for line in f]
    inside = [m for m in mounts if os.path.commonpath([m[0], directory]) == m[0]]
    # Of two at the same place the later one is seen.
    return max(enumerate(inside), key=lambda m: (len(m[1][0]), m[0]))[1][1]


def told(directory, rounds):
    """One paragraph."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    fio = subprocess.run(["fio", "--version"], capture_output=True, text=True).stdout.strip().replace("-", " ")
    commit = subprocess.run(["git", "describe", "--always", "--dirty=, changed"], capture_output=True, text=True).stdout.strip()
    model = first_line("/proc/cpuinfo", "model name", platform.machine())
    return (
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, kvDB at {commit or 'an unknown commit'}, medians of {rounds} round{'s' * (rounds != 1)}. "
        f"{os.cpu_count()} cores ({model}) for client and servers together, {memory:.0f} GiB, Linux {platform.release()}, "
        f"{file_system(directory)}, TCP {congestion_control()}; {nginx_version()}, {fio}.")
