"""What is measured, of whom and in which order."""

import contextlib
import json
import os
from dataclasses import dataclass

import sample
from servers import Broken, Constant302, Kvdb, Nginx, clean_environment

MIB = 1 << 20
GIB = 1 << 30
# Reads that bring all values of both replicas into the page cache: each goes to one of them at random.
WARM_UP = {"kvdb-2": 4}


@dataclass(frozen=True)
class Size:
    """Values of one length: `values` are put and read cold, the first `hot` of them are read again and again."""

    name: str
    length: int
    clients: int
    values: int
    hot: int

    def row(self, work):
        return f"{work} {self.name} × {self.clients}"


@dataclass(frozen=True)
class Plan:
    """How much is done."""

    sizes: tuple
    # Of what is read hot, in a loop.
    seconds: float
    # Keys that are looked up.
    keys: int
    fio_bytes: int
    loopback_bytes: int
    disk_bytes: int


WHOLE = Plan(
    sizes=(
        Size("16 B", 16, 8, 6000, 1000),
        Size("64 KiB", 64 << 10, 8, 4000, 1000),
        Size("1 MiB", MIB, 8, 1000, 256),
        Size("64 MiB", 64 * MIB, 2, 16, 4),
        Size("1 GiB", GIB, 1, 1, 1),
    ),
    seconds=1.5, keys=1000, fio_bytes=GIB, loopback_bytes=8 * GIB, disk_bytes=5 * 10**9)

# Everything once, with next to nothing to do; the names stay, so that the table is whole.
SMOKE = Plan(
    sizes=(
        Size("16 B", 16, 8, 40, 10),
        Size("64 KiB", 64 << 10, 8, 40, 10),
        Size("1 MiB", MIB, 8, 16, 8),
        Size("64 MiB", 2 * MIB, 2, 4, 2),
        Size("1 GiB", 8 * MIB, 1, 2, 1),
    ),
    seconds=0.1, keys=40, fio_bytes=8 * MIB, loopback_bytes=16 * MIB, disk_bytes=GIB)

LARGE = "1 GiB"
RANGE = "64 KiB ranges of 1 GiB × 8"
LOOKUP = "lookup × 16"
CYCLE = "put+get+delete 16 B × 16"


def rows(plan):
    """The names of all rows, in order."""
    by_size = [size.row(work) for size in plan.sizes for work in ("put", "get cold", "get hot")]
    return [*by_size, RANGE, LOOKUP, CYCLE]


class Round:
    """One round: all rows that are wanted, each of all systems right after each other."""

    def __init__(self, number, plan, programs, directory, wanted, record, can_drop):
        self.number = number
        self.plan = plan
        self.programs = programs
        self.directory = directory
        self.wanted = wanted
        self.record = record
        self.can_drop = can_drop

    def run(self):
        for size in self.plan.sizes:
            names = [size.row(work) for work in ("put", "get cold", "get hot")] + [RANGE] * (size.name == LARGE)
            if any(map(self.wanted, names)):
                self.values(size)
        if self.wanted(LOOKUP):
            self.lookups()
        if self.wanted(CYCLE):
            self.cycles()

    @contextlib.contextmanager
    def servers(self, *kinds):
        """Starts new servers; gives (server, name) of each system, another one first in each round."""
        with contextlib.ExitStack() as stack:
            systems = []
            for kind in kinds:
                server = kind()
                stack.callback(server.stop)
                server.begin()
                systems += [(server, name) for name in server.bases]
            first = self.number % len(systems)
            yield systems[first:] + systems[:first]

    def kvdb(self, replicas):
        return lambda: Kvdb(f"{self.directory}/kvdb-{replicas}", self.programs, replicas)

    def nginx(self):
        return Nginx(f"{self.directory}/nginx")

    def values(self, size):
        """The rows of one size: put, cold, hot, and ranges of the largest."""
        with self.servers(self.kvdb(1), self.kvdb(2), self.nginx) as systems:
            self.puts(size, [s for s in systems if s[1] != "nginx-nopush"])
            if self.wanted(size.row("get cold")) and self.can_drop:
                self.cold(size, systems)
            if self.wanted(size.row("get hot")):
                self.hot(size, systems)
            if size.name == LARGE and self.wanted(RANGE):
                for system in systems:
                    self.warm(size, system)
                    arguments = ("range", *self.of(size, size.hot), "--seconds", str(self.plan.seconds))
                    self.bench(RANGE, system, *arguments, clients=8)

    def puts(self, size, systems):
        row = size.row("put")
        measured = self.wanted(row)
        if measured and size.name == LARGE:
            self.fio(row)
        for system in systems:
            self.memory_for(size)
            self.bench(row if measured else None, system, "put", *self.of(size, size.values), clients=size.clients)
        if measured:
            self.loopback(row, "loopback-put", size)

    def cold(self, size, systems):
        row = size.row("get cold")
        for system in systems:
            self.drop()
            self.memory_for(size)
            self.bench(row, system, "get", *self.of(size, size.values), clients=size.clients)
        if size.name == LARGE:
            self.drop()
            self.memory_for(size)
            self.cat(row, next(server.path_of("kvdb-bench-0") for server, name in systems if name == "nginx"))

    @staticmethod
    def memory_for(size):
        """For all values of a size in the page cache, and some more."""
        sample.have_memory_ready(size.length * size.values * 5 // 4)

    def hot(self, size, systems):
        row = size.row("get hot")
        for system in systems:
            self.warm(size, system)
            arguments = ("get", *self.of(size, size.hot), "--seconds", str(self.plan.seconds))
            self.bench(row, system, *arguments, clients=size.clients)
        self.loopback(row, "loopback-get", size)

    def warm(self, size, system):
        requests = size.hot * WARM_UP.get(system[1], 1)
        self.bench(None, system, "get", *self.of(size, size.hot), "--requests", str(requests), clients=size.clients)

    def lookups(self):
        with self.servers(self.kvdb(1), lambda: Constant302(f"{self.directory}/hyper", self.programs)) as systems:
            keys = ("--size", "16", "--count", str(self.plan.keys))
            for system in systems:
                if system[1] != "hyper-302":
                    self.bench(None, system, "put", *keys, clients=16)
                self.bench(LOOKUP, system, "lookup", *keys, "--seconds", str(2 * self.plan.seconds), clients=16)

    def cycles(self):
        with self.servers(self.kvdb(1), self.kvdb(2), self.nginx) as systems:
            for system in systems:
                if system[1] != "nginx-nopush":
                    self.bench(CYCLE, system, "thrash", "--size", "16", "--seconds", str(2 * self.plan.seconds), clients=16)

    @staticmethod
    def of(size, values):
        return ("--size", str(size.length), "--count", str(values))

    def bench(self, row, system, *arguments, clients):
        """One run of the load generator; without a row its figures are not kept. Nothing is left to be written when it begins."""
        server, name = system
        os.sync()
        costs = sample.Costs(server.processes())
        command = [f"{self.programs}/kvdb", "--json", "bench", *arguments, "--clients", str(clients)]
        command += ["--base", server.bases[name], "--expect", server.expect]
        code, out, err, _, load = sample.run(command, clean_environment())
        if code != 0:
            raise Broken(f"{row or 'a preparation'}, {name}: kvdb bench failed ({code}): {err}{out}\n{server.last_words()}")
        figures = json.loads(out)
        if figures["count"] == 0 or figures["failures"] > 0:
            raise Broken(f"{row}, {name}: not all was done: {out}")
        if row:
            self.keep(row, name, figures, {**costs.so_far(), "load": load})

    def loopback(self, row, operation, size):
        """What loopback moves with no server behind it, for sizes at which that is the limit."""
        if size.length < MIB:
            return
        count = max(size.clients, self.plan.loopback_bytes // size.length)
        arguments = ("--size", str(size.length), "--count", str(count), "--clients", str(size.clients))
        code, out, err, _, load = sample.run([f"{self.programs}/kvdb", "--json", "bench", operation, *arguments], clean_environment())
        if code != 0:
            raise Broken(f"kvdb bench {operation} failed: {err}")
        self.keep(row, "loopback", json.loads(out), {"load": load})

    def fio(self, row):
        """What the disk takes, on stable storage."""
        path = f"{self.directory}/fio"
        os.sync()
        command = ["fio", "--name=disk", f"--filename={path}", "--rw=write", "--bs=1M", f"--size={self.plan.fio_bytes}"]
        command += ["--direct=1", "--ioengine=libaio", "--iodepth=8", "--end_fsync=1", "--output-format=json"]
        code, out, err, _, load = sample.run(command)
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
        if code != 0:
            raise Broken(f"fio failed; does the directory's file system take O_DIRECT? Choose another with --dir. {err}{out}")
        job = json.loads(out[out.index("{"):])["jobs"][0]
        # Its time includes the sync at the end.
        figures = {"ops_per_second": None, "mb_per_second": job["write"]["bw_bytes"] / 1e6, "seconds": job["write"]["runtime"] / 1e3}
        self.keep(row, "fio", figures, {"load": load})

    def cat(self, row, path):
        """What a cold file of the disk brings, by the plainest of means."""
        code, _, err, took, load = sample.run(["sh", "-c", 'exec cat "$1" >/dev/null', "sh", path])
        if code != 0:
            raise Broken(f"cat failed: {err}")
        self.keep(row, "cat", {"ops_per_second": None, "mb_per_second": os.path.getsize(path) / 1e6 / took, "seconds": took}, {"load": load})

    def drop(self):
        if not sample.drop_page_cache():
            raise Broken("the page cache could not be dropped")

    def keep(self, row, system, figures, processes):
        self.record({"round": self.number, "row": row, "system": system, **figures, "processes": processes})
