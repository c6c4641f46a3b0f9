"""The server of a directory: the program ``kvdb``, which ends with this process."""

from __future__ import annotations

import collections
import json
import os
import pathlib
import shutil
import subprocess
import threading
from typing import IO, Deque, Optional, Union, cast

from .errors import AlreadyOpen, ServerFailed

#: The exit code of ``kvdb`` for a directory that is in use.
_IN_USE = 6
#: Time for a start, in seconds: an index that is damaged is made again meanwhile.
_START_WITHIN = 120.0
#: Time for a stop, in seconds.
_STOP_WITHIN = 60.0
#: Lines of the log that are kept for an error's text.
_LOG_LINES = 40


def find_program(program: Union[str, "os.PathLike[str]", None]) -> str:
    """The program ``kvdb``: as given, as ``KVDB_PROGRAM`` says, or on ``PATH``."""
    asked = os.fspath(program) if program is not None else os.environ.get("KVDB_PROGRAM") or "kvdb"
    found = shutil.which(asked)
    if found is None:
        raise ServerFailed(
            f"the program {asked!r} is not there; build it with `cargo install --path crates/kvdb`, and have it on PATH or in KVDB_PROGRAM"
        )
    return found


class Server:
    """A running server of one directory."""

    def __init__(self, directory: pathlib.Path, program: str) -> None:
        command = [program, "up", str(directory), "--port", "0", "--stop-at-eof", "--json"]
        if not (directory / "volume1").is_dir():
            command += ["--volumes", "1"]
        # What is meant for a cluster of the same environment: this server is for this process alone, which has no token.
        environment = {name: value for name, value in os.environ.items() if name not in ("KVDB_REPLICAS", "KVDB_TOKENS")}
        try:
            # A session of its own: Ctrl-C is this process's business, which then stops the server in order.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise ServerFailed(f"{program} cannot be started: {error}") from error
        self._log: Deque[str] = collections.deque(maxlen=_LOG_LINES)
        self._reader = threading.Thread(target=self._read_log, args=(cast(IO[bytes], self._process.stderr), self._log), daemon=True)
        self._reader.start()
        try:
            self.url = self._greeting(directory)
        except BaseException:
            self.kill()
            raise

    @staticmethod
    def _read_log(log: IO[bytes], lines: Deque[str]) -> None:
        with log:
            for line in iter(lambda: log.readline(4096), b""):
                lines.append(line.decode(errors="replace").rstrip())

    def _greeting(self, directory: pathlib.Path) -> str:
        too_late = threading.Timer(_START_WITHIN, self._process.kill)
        too_late.start()
        try:
            line = cast(IO[bytes], self._process.stdout).readline(1 << 16)
        finally:
            too_late.cancel()
        try:
            return str(json.loads(line)["master"])
        except (ValueError, KeyError, TypeError):
            pass
        code = self._wait(_STOP_WITHIN)
        if code == _IN_USE:
            raise AlreadyOpen(f"{directory} is open already, here or in another process; close it there first")
        self._reader.join(_STOP_WITHIN)
        said = "\n".join(self._log) or "it said nothing"
        raise ServerFailed(f"the server of {directory} did not start (exit code {code}): {said}")

    def _wait(self, seconds: float) -> Optional[int]:
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self._process.pid

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Stops it in order; kills it if that takes too long, which loses nothing that was acknowledged."""
        self._close_pipes()
        if self._wait(_STOP_WITHIN) is None:
            self.kill()
        self._reader.join(_STOP_WITHIN)

    def kill(self) -> None:
        """Ends it at once."""
        self._process.kill()
        self._process.wait()
        self._close_pipes()

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    pass
