"""Requests as they go to the servers: redirects, retries, and what became of a write whose answer was lost."""

from __future__ import annotations

import contextlib
import json
import queue
import random
import time
import urllib.parse
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Tuple, TypeVar, Union

import requests

from .errors import Closed, Corrupt, KvdbError, NoSpace, OutcomeUnknown, Unavailable, from_problem

T = TypeVar("T")
Data = Union[bytes, "Body"]

_MAX_HOPS = 10
#: Most bytes of an answer that is read as a problem.
_MAX_PROBLEM_BYTES = 4 << 20
_FIRST_WAIT = 0.05
_LONGEST_WAIT = 2.0
#: Time to connect, in seconds.
_CONNECT_WITHIN = 10.0
_REDIRECTS = (301, 302, 303, 307, 308)


class Body:
    """Bytes that are sent piece by piece, and can be sent again from their beginning."""

    def __len__(self) -> int:
        raise NotImplementedError

    def __iter__(self) -> Iterator[bytes]:
        raise NotImplementedError


class Broken(Exception):
    """The connection failed: whether the server got the request is not known."""


class Retry:
    """Waits between tries, until the time is over."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self._wait = _FIRST_WAIT

    def wait(self, error: KvdbError) -> None:
        """Waits, or raises the error: it will not pass, or the time is over."""
        # A full disk does not empty itself, and an outcome that is not known is not to be tried again.
        if not error.retry or isinstance(error, (NoSpace, OutcomeUnknown)):
            raise error
        wait = self._wait * random.uniform(0.5, 1.0)
        self._wait = min(self._wait * 2, _LONGEST_WAIT)
        if time.monotonic() + wait > self._until:
            raise error
        time.sleep(wait)


class Transport:
    """Speaks to a master, and to the volumes that it names. For any number of threads."""

    def __init__(
        self,
        base: str,
        token: Optional[str],
        retry_for: float,
        answer_within: float,
        proxies: bool = True,
        alive: Callable[[], bool] = lambda: True,
    ) -> None:
        """``alive``: whether it is of any use to try again."""
        self.base = base.rstrip("/")
        self._retry_for = retry_for
        self._alive = alive
        self._token = token
        self._origin = _origin(self.base)
        self._timeout = (_CONNECT_WITHIN, answer_within)
        self._proxies = proxies
        self._idle: "queue.LifoQueue[requests.Session]" = queue.LifoQueue()
        self._closed = False

    def close(self) -> None:
        """Closes the connections that are idle; those in use are closed when they become so."""
        self._closed = True
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    @contextlib.contextmanager
    def _session(self) -> Iterator[requests.Session]:
        if self._closed:
            raise Closed("the store was closed")
        try:
            session = self._idle.get_nowait()
        except queue.Empty:
            session = requests.Session()
            session.trust_env = self._proxies
        try:
            yield session
        finally:
            if self._closed:
                session.close()
            else:
                self._idle.put(session)

    @contextlib.contextmanager
    def send(self, method: str, url: str, headers: Mapping[str, str], data: Data = b"") -> Iterator[requests.Response]:
        """One request, without following redirects. The answer's body is read within the context."""
        all_headers: Dict[str, str] = {"Accept-Encoding": "identity", **headers}
        # The master alone gets the token: a volume is permitted by what the master signed.
        if self._token is not None and _origin(url) == self._origin:
            all_headers["Authorization"] = f"Bearer {self._token}"
        with self._session() as session:
            request = requests.Request(method, self.base + "/", headers=all_headers, data=data or None, auth=lambda r: r)
            prepared = session.prepare_request(request)
            # As it is: to be rid of `.` and `..`, or to escape anew, would make another key of it.
            prepared.url = url
            settings = session.merge_environment_settings(url, {}, True, None, None)
            try:
                answer = session.send(prepared, allow_redirects=False, timeout=self._timeout, **settings)
            except requests.RequestException as error:
                raise Broken(f"{_origin(url)}: {error}") from error
            with contextlib.closing(answer):
                yield answer

    def ask(self, method: str, url: str, headers: Mapping[str, str], data: Data = b"") -> Tuple[requests.Response, bytes]:
        """One request with a small answer, which is read whole."""
        with self.send(method, url, headers, data) as answer:
            return answer, read(answer, _MAX_PROBLEM_BYTES)

    def again(self, once: Callable[[], T]) -> T:
        """Does what changes nothing, or may be done twice, until it is done or cannot be."""
        retry = Retry(self._retry_for)
        while True:
            try:
                return once()
            except Broken as broken:
                error: KvdbError = Unavailable(str(broken), retry=True)
            except KvdbError as refused:
                error = refused
            self._check_alive(error)
            retry.wait(error)

    def _check_alive(self, error: KvdbError) -> None:
        if not self._alive():
            raise Closed("the server of the directory has ended; open the directory again") from error

    def json(self, method: str, target: str, headers: Optional[Mapping[str, str]] = None, data: bytes = b"") -> Any:
        """The master's answer to a request that may be sent again, as JSON."""

        def once() -> Any:
            answer, body = self.ask(method, self.base + target, headers or {}, data)
            if answer.status_code != 200:
                raise problem(answer, body)
            return parse(body)

        return self.again(once)

    @contextlib.contextmanager
    def follow(self, method: str, target: str, headers: Mapping[str, str]) -> Iterator[requests.Response]:
        """A read, through the redirects; an answer of 2xx or 416 is given, and anything else raised."""
        url = self.base + target
        for _ in range(_MAX_HOPS):
            with self.send(method, url, headers) as answer:
                following = location(answer, url)
                if following is None:
                    if answer.status_code // 100 != 2:
                        raise problem(answer, read(answer, _MAX_PROBLEM_BYTES))
                    yield answer
                    return
                # Read, so that the connection can be used again.
                read(answer, _MAX_PROBLEM_BYTES)
                url = following
        raise Unavailable("the servers send the request to and fro", retry=True)

    def write(self, method: str, target: str, headers: Mapping[str, str], data: Data = b"") -> int:
        """A write; the status of its answer, which is 2xx. It takes effect once at most, whatever happens on the way."""
        return self.again(lambda: self._try_write(method, self.base + target, headers, data))

    def _try_write(self, method: str, url: str, headers: Mapping[str, str], data: Data) -> int:
        announced = {**headers, "Kvdb-Content-Length": str(len(data))} if method != "DELETE" else headers
        for _ in range(_MAX_HOPS):
            # Without the value: the master says where it is to go. Nothing is changed by this.
            answer, body = self.ask(method, url, announced)
            permitted = location(answer, url)
            if permitted is None:
                raise problem(answer, body)
            ticket = urllib.parse.parse_qs(urllib.parse.urlsplit(permitted).query).get("ticket")
            if not ticket:
                url = permitted
                continue
            try:
                answer, body = self.ask(method, permitted, headers, data)
            except Broken as broken:
                return self._outcome(method, ticket[0], str(broken))
            if answer.status_code // 100 == 2:
                return answer.status_code
            back = location(answer, permitted)
            if back is None:
                error = problem(answer, body)
                if isinstance(error, OutcomeUnknown):
                    return self._outcome(method, ticket[0], error.detail)
                raise error
            url = back
        raise Unavailable("the servers send the value to and fro", retry=True)

    def _outcome(self, method: str, ticket: str, why: str) -> int:
        """What became of a write whose answer was lost: its status; an error that can be tried again if it never will be done."""
        retry = Retry(self._retry_for)
        while True:
            try:
                answer, body = self.ask("POST", self.base + "/-/outcome", {}, ticket.encode())
                told = parse(body) if answer.status_code == 200 else {}
                if told.get("outcome") == "committed":
                    return 201 if method != "DELETE" and told.get("created") is True else 200
                if told.get("outcome") == "refused":
                    refusal = told.get("problem") or {}
                    raise from_problem(refusal, int(refusal.get("status", 409)))
                reason = problem(answer, body).detail
            except Broken as broken:
                reason = str(broken)
            lost = f"the answer was lost ({why}), and what became of the write could not be learned: {reason}"
            try:
                self._check_alive(Unavailable(reason))
                retry.wait(Unavailable(reason, retry=True))
            except KvdbError as error:
                raise OutcomeUnknown(lost, code="outcome_unknown") from error


def read(answer: requests.Response, most: int) -> bytes:
    """All of an answer's body: neither more nor less than it announces, and at most so many bytes."""
    pieces, length = [], 0
    for piece in pieces_of(answer):
        length += len(piece)
        if length > most:
            raise Corrupt(f"the answer is longer than {most} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def pieces_of(answer: requests.Response) -> Iterator[bytes]:
    """An answer's body piece by piece; one that ends before its announced length is an error."""
    announced, length = answer.headers.get("Content-Length", ""), 0
    has_body = answer.request.method != "HEAD" and answer.status_code not in (204, 304)
    try:
        for piece in answer.iter_content(1 << 18):
            length += len(piece)
            yield piece
    except (requests.RequestException, OSError) as error:
        raise Broken(f"the answer broke off after {length} bytes: {error}") from error
    if has_body and announced.isdigit() and int(announced) != length:
        raise Broken(f"the answer broke off after {length} of {announced} bytes")


def parse(body: bytes) -> Any:
    """JSON of a server."""
    try:
        return json.loads(body)
    except ValueError as error:
        raise KvdbError(f"the server's answer is not JSON: {error}; is this a kvDB master?") from error


def problem(answer: requests.Response, body: bytes) -> KvdbError:
    """The error that an answer tells of."""
    document: Any = None
    if answer.headers.get("Content-Type", "").startswith("application/problem+json"):
        with contextlib.suppress(KvdbError):
            document = parse(body)
    if isinstance(document, dict):
        return from_problem(document, answer.status_code)
    if answer.request.method == "HEAD" and answer.status_code == 404:
        return from_problem({"code": "not_found", "detail": "there is no value under this key"}, 404)
    return from_problem({"retry": answer.status_code in (502, 503)}, answer.status_code)


def location(answer: requests.Response, url: str) -> Optional[str]:
    """Where a redirect leads; none where the answer is none."""
    if answer.status_code not in _REDIRECTS or "Location" not in answer.headers:
        return None
    return urllib.parse.urljoin(url, answer.headers["Location"])


def _origin(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
