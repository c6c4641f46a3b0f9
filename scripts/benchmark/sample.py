"""What processes cost: CPU seconds and peak resident memory, as Linux counts them."""

import mmap
import os
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")
POLL_SECONDS = 0.02
# Not in Python's mmap (Linux 5.14).
MADV_POPULATE_WRITE = 23


def cpu_seconds(pid):
    """User and system time of a process so far; its children's not included."""
    with open(f"/proc/{pid}/stat") as f:
        # The name, in parentheses, may hold anything; then comes field 3.
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_bytes(pid):
    """Most resident memory of a process since `forget_peak`; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/status") as f:
            return next((int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM:")), 0)
    except (FileNotFoundError, ProcessLookupError):
        return 0


def forget_peak(pid):
    """Lets the peak begin at what is resident now."""
    with open(f"/proc/{pid}/clear_refs", "w") as f:
        f.write("5")


class Costs:
    """What processes cost from now on; `processes` is a dict of name: list of pids, whose figures are added."""

    def __init__(self, processes):
        self.processes = processes
        for pid in self.pids():
            forget_peak(pid)
        self.before = {pid: cpu_seconds(pid) for pid in self.pids()}

    def pids(self):
        return [pid for pids in self.processes.values() for pid in pids]

    def so_far(self):
        """By name: CPU seconds and peak bytes."""
        def one(pids):
            cpu = sum(cpu_seconds(pid) - self.before[pid] for pid in pids)
            return {"cpu_seconds": round(cpu, 3), "peak_bytes": sum(peak_bytes(pid) for pid in pids)}
        return {name: one(pids) for name, pids in self.processes.items()}


def run(command, environment=None):
    """Runs a program to its end: its exit code, what it wrote to both outputs, how long it took and its own costs."""
    began = time.monotonic()
    # What it writes is little: it fits into the pipes.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    peak = 0
    try:
        while True:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            # Of an ended process the kernel tells a peak that includes this one's, whose copy it was for a moment.
            peak = max(peak, peak_bytes(child.pid))
            time.sleep(POLL_SECONDS)
    except BaseException:
        child.kill()
        raise
    took = time.monotonic() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    out, err = child.stdout.read(), child.stderr.read()
    child.stdout.close()
    child.stderr.close()
    return child.returncode, out, err, took, {"cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3), "peak_bytes": peak}


def drop_page_cache():
    """Writes out what is dirty and empties the page cache. False if this user may not."""
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w") as f:
            f.write("3")
        return True
    except OSError:
        done = subprocess.run(["sudo", "-n", "tee", "/proc/sys/vm/drop_caches"], input="3", text=True, capture_output=True) if have_sudo() else None
        return done is not None and done.returncode == 0


def have_memory_ready(length):
    """Uses so many bytes of memory and frees them, so that whoever is measured next finds as much as everybody. The host of a virtual
    machine may have taken free memory back (virtio's free page reporting, seconds after it was freed); the first use of a page is then
    several times slower than reading it from the disk, and falls to whoever needs page cache first."""
    length = min(length, available_bytes() // 2)
    if length <= 0:
        return
    with mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE) as memory:
        try:
            memory.madvise(mmap.MADV_HUGEPAGE)
            memory.madvise(MADV_POPULATE_WRITE)
        except (OSError, ValueError):
            # Older kernels: page by page.
            for at in range(0, length, mmap.PAGESIZE):
                memory[at] = 1


def available_bytes():
    with open("/proc/meminfo") as f:
        return next((int(line.split()[1]) << 10 for line in f if line.startswith("MemAvailable")), 0)


def have_sudo():
    return any(os.access(os.path.join(d, "sudo"), os.X_OK) for d in os.environ.get("PATH", "").split(":"))
