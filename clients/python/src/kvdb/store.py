"""A store: the same calls over a directory of one's own and over a cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import pathlib
import shutil
import urllib.parse
import uuid
from types import TracebackType
from typing import Any, BinaryIO, Generic, Iterator, Mapping, Optional, Type, Union, overload

from .errors import BadKey, BadValue, TooLarge
from .profile import KEY_VALUE_DS, JsonObject, Profile, V
from .server import Server, find_program
from .transport import Body, Transport, pieces_of, read

#: Text, which stands for its UTF-8, or bytes.
Key = Union[str, bytes]
#: Seconds, or a time.
TimeToLive = Union[int, float, datetime.timedelta]
Path = Union[str, "os.PathLike[str]"]

#: What may stand in a path as it is; `%`, `+`, `?` and `#` may not.
_IN_PATH = "/-._~:@!$()*,="
_PIECE = 1 << 20
_PAGE = 1000


@dataclasses.dataclass(frozen=True)
class Info:
    """What is known of a value: its length in bytes, BLAKE3 in hex, content type, version, and how long it has still to live."""

    length: int
    blake3: str
    content_type: Optional[str]
    version: str
    remaining: Optional[datetime.timedelta]


class _FileBody(Body):
    """The next bytes of a file, which can be read again."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._start = file.tell()
        self._length = file.seek(0, os.SEEK_END) - self._start

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        left = self._length
        try:
            self._file.seek(self._start)
            while left > 0:
                piece = self._file.read(min(_PIECE, left))
                if not piece:
                    raise BadValue(f"the file became {left} bytes shorter while it was stored")
                left -= len(piece)
                yield piece
        except OSError as error:
            raise BadValue(f"the file cannot be read: {error}") from error


class Store(Generic[V]):
    """A key-value store. Made by :meth:`open` or :meth:`connect`; for any number of threads; a context manager."""

    def __init__(self, transport: Transport, profile: Profile[V], server: Optional[Server], directory: Optional[pathlib.Path]) -> None:
        self._transport = transport
        self._profile = profile
        self._server = server
        self._directory = directory

    @overload
    @classmethod
    def open(cls, directory: Optional[Path] = None, *, program: Optional[Path] = None, retry_for: float = 30.0) -> Store[JsonObject]: ...

    @overload
    @classmethod
    def open(
        cls, directory: Optional[Path] = None, *, profile: Profile[V], program: Optional[Path] = None, retry_for: float = 30.0
    ) -> Store[V]: ...

    @classmethod
    def open(
        cls,
        directory: Optional[Path] = None,
        *,
        profile: Any = KEY_VALUE_DS,
        program: Optional[Path] = None,
        retry_for: float = 30.0,
    ) -> Store[Any]:
        """Opens a directory, made where there is none, with a server of its own that ends with this process.

        Without a directory a new one is made in the working directory, ``kvdb-`` and a UUID; :attr:`directory` tells it. ``program`` is
        the program ``kvdb``; without it ``KVDB_PROGRAM`` or ``PATH`` says where it is. What can pass by itself is tried again for
        ``retry_for`` seconds.

        Raises ``AlreadyOpen`` at once if the directory is open, ``ServerFailed`` if it cannot be served.
        """
        path = pathlib.Path(directory) if directory is not None else pathlib.Path.cwd() / f"kvdb-{uuid.uuid4()}"
        server = Server(path, find_program(program))
        # Loopback needs no proxy.
        transport = Transport(server.url, None, retry_for, 120.0, proxies=False, alive=server.is_running)
        return cls(transport, profile, server, path)

    @overload
    @classmethod
    def connect(cls, url: str, token: Optional[str] = None, *, retry_for: float = 30.0, answer_within: float = 120.0) -> Store[JsonObject]: ...

    @overload
    @classmethod
    def connect(
        cls, url: str, token: Optional[str] = None, *, profile: Profile[V], retry_for: float = 30.0, answer_within: float = 120.0
    ) -> Store[V]: ...

    @classmethod
    def connect(
        cls,
        url: str,
        token: Optional[str] = None,
        *,
        profile: Any = KEY_VALUE_DS,
        retry_for: float = 30.0,
        answer_within: float = 120.0,
    ) -> Store[Any]:
        """The same calls over the cluster whose master is at ``url``. Makes no connection yet.

        A server that says nothing for ``answer_within`` seconds counts as gone. Proxies are those of the environment.
        """
        return cls(Transport(url, token, retry_for, answer_within), profile, None, None)

    @property
    def directory(self) -> Optional[pathlib.Path]:
        """The directory, where one was opened."""
        return self._directory

    @property
    def url(self) -> str:
        """Where the master is."""
        return self._transport.base

    @property
    def server_pid(self) -> Optional[int]:
        """The process id of the directory's server, where one was opened."""
        return self._server.pid if self._server is not None else None

    def close(self) -> None:
        """Closes the connections, and stops the directory's server. Other calls raise ``Closed`` from then on."""
        self._transport.close()
        if self._server is not None:
            self._server.stop()

    def __enter__(self) -> Store[V]:
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.close()

    def create(self, key: Key, value: V, ttl: Optional[TimeToLive] = None) -> None:
        """Stores a value under a key that has none, for ``ttl`` seconds or for good. Durable when it returns.

        Raises ``KeyExists``, ``BadKey``, ``BadValue``, ``TooLarge``.
        """
        self._store("POST", key, value, ttl)

    def put(self, key: Key, value: V, ttl: Optional[TimeToLive] = None) -> bool:
        """Stores a value, in place of the one that is there, if any; returns whether the key was new. Otherwise as :meth:`create`."""
        return self._store("PUT", key, value, ttl)

    def get(self, key: Key) -> V:
        """The value of a key. Raises ``NotFound``; ``TooLarge`` for one that the profile does not take: see :meth:`get_file`."""
        target, most = self._path(key), self._profile.max_value_bytes

        def once() -> bytes:
            with self._transport.follow("GET", target, {}) as answer:
                length = int(answer.headers.get("Content-Length", "0"))
                if length > most:
                    raise TooLarge(f"the value has {length} bytes, and this store reads at most {most} into memory; use get_file")
                return read(answer, most)

        return self._profile.decode(self._transport.again(once))

    def info(self, key: Key) -> Info:
        """What is known of a key's value. Raises ``NotFound``."""
        target = self._path(key)

        def once() -> Info:
            with self._transport.follow("HEAD", target, {}) as answer:
                headers = answer.headers
            left = headers.get("Kvdb-Ttl")
            return Info(
                length=int(headers["Content-Length"]),
                blake3=headers["ETag"].strip('"'),
                content_type=headers.get("Content-Type"),
                version=headers["Kvdb-Version"],
                remaining=None if left is None else datetime.timedelta(milliseconds=int(left)),
            )

        return self._transport.again(once)

    def delete(self, key: Key) -> None:
        """Deletes a key. Durable when it returns. Raises ``NotFound``."""
        self._transport.write("DELETE", self._path(key), {})

    def delete_all(self, prefix: Optional[Key] = None) -> int:
        """Deletes all keys, or those that begin with a prefix, and returns how many; if it is cut off, it can be called again.

        Keys of which the deletion was done and the answer lost are not counted.
        """
        if prefix is not None and not prefix:
            raise BadKey("an empty prefix is every key; call delete_all() without one if that is meant")
        target = "/?delete-all&all" if prefix is None else _prefix_path(prefix) + "?delete-all"
        deleted, start = 0, ""
        while True:
            page = self._transport.json("POST", target + (f"&start={_in_query(start)}" if start else ""))
            deleted += int(page["deleted"])
            start = page["next"]
            if not start:
                return deleted

    def list(self, prefix: Key = b"") -> Iterator[Key]:
        """The keys that begin with a prefix, in order of their bytes; those that are no UTF-8 as bytes."""
        start = ""
        while True:
            query = f"?list&limit={_PAGE}" + (f"&start={_in_query(start)}" if start else "")
            page = self._transport.json("GET", _prefix_path(prefix) + query)
            for text in page["keys"]:
                yield _key(_listed(text))
            start = page["next"]
            if not start:
                return

    def put_file(self, key: Key, file: Union[Path, BinaryIO], ttl: Optional[TimeToLive] = None, *, create: bool = False) -> bool:
        """Stores a file, or the rest of one that is open and can seek, without reading it into memory; returns whether the key was new.

        The profile's limits for values do not hold for it. With ``create`` an existing key is ``KeyExists``.
        """
        with contextlib.ExitStack() as stack:
            opened = stack.enter_context(open(file, "rb")) if isinstance(file, (str, os.PathLike)) else file
            headers = _time_to_live(ttl)
            return self._transport.write("POST" if create else "PUT", self._path(key), headers, _FileBody(opened)) == 201

    def get_file(self, key: Key, file: Union[Path, BinaryIO]) -> int:
        """Writes a value to a file, or to one that is open, piece by piece; returns its length in bytes. Raises ``NotFound``.

        A file that is named appears only when all of it is there, in place of one of that name. What comes after a broken connection is
        asked for from where it was, if the value is still the same.
        """
        if not isinstance(file, (str, os.PathLike)):
            return self._download(key, file)
        path = pathlib.Path(file)
        part = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex}.part")
        try:
            with open(part, "xb") as out:
                length = self._download(key, out)
                out.flush()
                os.fsync(out.fileno())
            if path.exists():
                shutil.copymode(path, part)
            os.replace(part, path)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink()
            raise
        return length

    def _download(self, key: Key, out: BinaryIO) -> int:
        target, start = self._path(key), out.tell() if out.seekable() else None
        etag, done = "", 0

        def once() -> int:
            nonlocal etag, done
            headers = {"Range": f"bytes={done}-", "If-Range": etag} if done else {}
            with self._transport.follow("GET", target, headers) as answer:
                if done and answer.status_code == 200:
                    # It is another value by now.
                    if start is None:
                        raise BadValue("the value was replaced while it was read, and what was written cannot be taken back")
                    out.seek(start)
                    out.truncate()
                    done = 0
                etag = answer.headers["ETag"]
                for piece in pieces_of(answer):
                    out.write(piece)
                    done += len(piece)
                return done

        return self._transport.again(once)

    def _store(self, method: str, key: Key, value: V, ttl: Optional[TimeToLive]) -> bool:
        raw = self._profile.value_bytes(value)
        headers = {"Content-Type": self._profile.content_type, **_time_to_live(ttl)}
        return self._transport.write(method, self._path(key), headers, raw) == 201

    def _path(self, key: Key) -> str:
        segments = self._profile.key_bytes(key).split(b"/")
        # Others on the way would take these for steps.
        steps = {b".": "%2E", b"..": "%2E%2E"}
        return "/" + "/".join(steps.get(s) or urllib.parse.quote(s, safe=_IN_PATH) for s in segments)


def _time_to_live(ttl: Optional[TimeToLive]) -> Mapping[str, str]:
    if ttl is None:
        return {}
    seconds = ttl.total_seconds() if isinstance(ttl, datetime.timedelta) else ttl
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < 1e12 or round(seconds * 1000) < 1:
        raise BadValue("a time to live is a number of seconds, at least 0.001, or a timedelta")
    return {"Kvdb-Ttl": f"{round(seconds * 1000)}ms"}


def _listed(text: str) -> bytes:
    """A key's bytes as lists write it: as it is, or, where there is a percent sign, percent-encoded."""
    return urllib.parse.unquote_to_bytes(text) if "%" in text else text.encode()


def _in_query(listed: str) -> str:
    """What a list wrote, as the value of a query."""
    return urllib.parse.quote(_listed(listed), safe="")


def _prefix_path(prefix: Key) -> str:
    return "/" + urllib.parse.quote(prefix, safe=_IN_PATH)


def _key(raw: bytes) -> Key:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw
