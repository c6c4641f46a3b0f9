"""Stores and clusters of real processes, each in a directory of its own."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.request
from typing import Iterator, List, Optional

import pytest

import kvdb
from kvdb.server import find_program


def _program(name: str) -> str:
    """A program that is built beside `kvdb`."""
    return str(pathlib.Path(find_program(None)).with_name(name))


def _free_ports(count: int) -> List[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


class Cluster:
    """A master and two volumes, each a process, on ports that stay theirs over restarts."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        directory.mkdir()
        self.ports = _free_ports(3)
        self.url = f"http://localhost:{self.ports[0]}"
        self.processes: List[Optional[subprocess.Popen[bytes]]] = [None, None, None]
        for server in (1, 2, 0):
            self.start(server)
        self.wait()

    def start(self, server: int, *more: str) -> None:
        """Starts the master (0) or a volume (1, 2), with more arguments."""
        if server == 0:
            volumes = ",".join(f"localhost:{port}" for port in self.ports[1:])
            command = [_program("master"), volumes, str(self.directory / "master")]
        else:
            command = [_program("volume"), str(self.directory / f"volume{server}")]
        with open(self.directory / "log", "ab") as log:
            environment = {**os.environ, "PORT": str(self.ports[server])}
            self.processes[server] = subprocess.Popen([*command, *more], env=environment, stdout=log, stderr=log)

    def kill(self, server: int) -> None:
        """`kill -9` of one."""
        process = self.processes[server]
        assert process is not None
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.processes[server] = None

    def wait(self) -> None:
        """Until it takes requests."""
        until = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/-/health/ready", timeout=5):
                    return
            except OSError:
                assert time.monotonic() < until, (self.directory / "log").read_text()
                time.sleep(0.02)

    def stop(self) -> None:
        for process in filter(None, self.processes):
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path: pathlib.Path) -> Iterator[Cluster]:
    running = Cluster(tmp_path / "cluster")
    yield running
    running.stop()


@pytest.fixture
def plain(tmp_path: pathlib.Path) -> Iterator[kvdb.Store[bytes]]:
    with kvdb.Store.open(tmp_path / "plain", profile=kvdb.PLAIN) as store:
        yield store


@pytest.fixture(params=["embedded", "cluster"])
def either(request: pytest.FixtureRequest) -> kvdb.Store[bytes]:
    """The same calls over both."""
    if request.param == "embedded":
        store: kvdb.Store[bytes] = request.getfixturevalue("plain")
        return store
    return kvdb.Store.connect(request.getfixturevalue("cluster").url, profile=kvdb.PLAIN)
