"""A careful HTTP client for one served model: paced, patient with failures of transport, and strict in what it takes.

Every request has a connection of its own, so that a balancer cannot keep the auditor on one of several servers (T9).
Failures of transport (no connection, a time-out, a broken body, status 408, 425, 429 and 5xx) are tried again with
growing waits; what is left of them ends the audit without a verdict in the server's favour. Redirects are not followed:
the address that is audited is the one that was given. Certificates of TLS are checked.

Source: RFC 9110 (status codes, Retry-After, redirects); THREATS T9.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import urllib3
from urllib3.exceptions import HTTPError, SSLError

from prune_verify.audit.endpoint_protocol import Address, EndpointError, MalformedAnswerError
from prune_verify.checker.encoding import read_file
from prune_verify.checker.errors import MalformedInputError

__all__ = ["Client", "Manners", "read_headers"]

_OK = 200
_MISSING = (404, 405)
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK = 2**16
_MOST_METADATA = 2**22
_MOST_HEADERS = 2**16
_LONGEST_WAIT = 60.0
_FIRST_WAIT = 0.5


@dataclass(frozen=True)
class Manners:
    """How the client behaves.

    Args:
        rate: requests per second at most; 0: as fast as answers come.
        timeout: seconds for one request, its answer read to the end.
        retries: further tries after a failure of transport.
        headers: sent with every request, such as ``Authorization``; never shown.
        authorities: file of the certificate authorities to believe; the system's by default.
        proxy: address of an HTTP proxy, or None.
        sleep: waits.
        clock: seconds from some beginning.

    """

    rate: float = 20.0
    timeout: float = 30.0
    retries: int = 5
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    authorities: Path | None = None
    proxy: str | None = None
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


def read_headers(path: Path) -> dict[str, str]:
    """Headers from a file: one ``Name: value`` a line. They may hold secrets, which a command line would show.

    Raises:
        MalformedInputError: another form, or a header that this client sets itself.

    """
    found: dict[str, str] = {}
    text = read_file(path, "headers", _MOST_HEADERS).decode("latin-1")
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        name, colon, value = line.partition(":")
        plain = name.isascii() and name.replace("-", "").replace("_", "").isalnum() and value.isprintable()
        if not colon or not plain or name.lower() in ("host", "content-length", "connection", "accept-encoding"):
            place = f"{path}: line {number}"
            raise MalformedInputError(place, "header", "Name: value, and none that this client sets", f"name {name!r}")
        found[name] = value.strip()
    return found


class _Failure(Exception):  # noqa: N818 - it never leaves this module
    """A try that may be worth repeating.

    Args:
        reason: what went wrong.
        wait: seconds that the server asked for.

    """

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.reason, self.wait = reason, wait


class Client:
    """Talks to one served model.

    Args:
        address: of the model.
        manners: how.

    Raises:
        MalformedInputError: the proxy or the authorities cannot be used.

    """

    def __init__(self, address: Address, manners: Manners) -> None:
        self._address, self._manners, self._next = address, manners, 0.0
        authorities = None if manners.authorities is None else str(manners.authorities)
        if manners.authorities is not None:
            read_file(manners.authorities, "certificate authorities", _MOST_METADATA)
        try:
            self._pool = (
                urllib3.PoolManager(num_pools=1, ca_certs=authorities)
                if manners.proxy is None
                else urllib3.ProxyManager(manners.proxy, num_pools=1, ca_certs=authorities)
            )
        except (HTTPError, ValueError) as error:
            raise MalformedInputError("--proxy", "address of a proxy", "http(s)://HOST:PORT", str(error)) from None

    def require_ready(self) -> None:
        """Establish that the server is up; one that does not say so (404) is asked for its model instead.

        Raises:
            EndpointError: it is not reached, or not ready after all tries.

        """
        status, _ = self._patiently("GET", self._address.ready, None, _MOST_METADATA)
        if status != _OK and status not in _MISSING:
            raise EndpointError(
                self._address.origin + self._address.ready, "a server that is ready", "status 200", f"status {status}"
            )

    def metadata(self) -> bytes:
        """The model's metadata, as sent.

        Raises:
            EndpointError: the server lacks the model, or is not reached.

        """
        status, data = self._patiently("GET", self._address.path, None, _MOST_METADATA)
        if status != _OK:
            raise EndpointError(
                self._address.url, "a model of this name", "status 200", f"status {status}{_said(data)}"
            )
        return data

    def infer(self, body: bytes, most: int) -> bytes:
        """The answer to one request.

        Args:
            body: the request.
            most: greatest length of an answer, in bytes.

        Raises:
            EndpointError: no answer after all tries, or a refusal.
            MalformedAnswerError: an answer that is longer than ``most``, or compressed although that was not offered.

        """
        status, data = self._patiently("POST", self._address.infer, body, most)
        if status != _OK:
            place = self._address.origin + self._address.infer
            raise EndpointError(place, "an answer to a query", "status 200", f"status {status}{_said(data)}")
        return data

    def _patiently(self, method: str, path: str, body: bytes | None, most: int) -> tuple[int, bytes]:
        """One exchange, tried again after failures of transport."""
        tries = self._manners.retries + 1
        for count in range(tries):
            self._pace()
            try:
                return self._once(method, path, body, most)
            except _Failure as failure:
                if count + 1 == tries:
                    place = f"{method} {self._address.origin}{path}"
                    raise EndpointError(place, f"an answer in {tries} tries", "an answer", failure.reason) from None
                self._manners.sleep(min(_LONGEST_WAIT, max(failure.wait, _FIRST_WAIT * 2**count)))
        raise EndpointError(path, "tries", "at least one", "none")

    def _pace(self) -> None:
        """Wait until the next request is due."""
        if self._manners.rate > 0:
            now = self._manners.clock()
            if now < self._next:
                self._manners.sleep(self._next - now)
            self._next = max(now, self._next) + 1 / self._manners.rate

    def _once(self, method: str, path: str, body: bytes | None, most: int) -> tuple[int, bytes]:
        manners, url = self._manners, self._address.origin + path
        headers = {"Accept": "application/json"} | ({} if body is None else {"Content-Type": "application/json"})
        headers |= {**manners.headers, "Accept-Encoding": "identity"}
        ends = manners.clock() + manners.timeout
        try:
            response = self._pool.request(
                method,
                url,
                body=body,
                headers=headers,
                redirect=False,
                retries=False,
                timeout=urllib3.Timeout(total=manners.timeout),
                preload_content=False,
                decode_content=False,
            )
            try:
                self._require_status(response, url)
                return response.status, self._body(response, url, most, ends)
            finally:
                response.close()
                self._pool.clear()  # no header says so: the connection is simply not used again
        except SSLError as error:
            raise EndpointError(url, "a TLS certificate that is believed here (see --ca)", "one", str(error)) from None
        except HTTPError as error:
            raise _Failure(f"{type(error).__name__}: {error}") from None
        except OSError as error:
            raise _Failure(f"{type(error).__name__}: {error}") from None

    def _require_status(self, response: urllib3.BaseHTTPResponse, url: str) -> None:
        """Refuse redirects; what may pass is tried again."""
        if response.status in _REDIRECTS:
            to = response.headers.get("Location", "nowhere")
            raise EndpointError(url, "an answer; redirects are not followed", "status 200", f"a redirect to {to}")
        if response.status in _TRANSIENT:
            after = response.headers.get("Retry-After", "")
            wait = float(after) if after.isascii() and after.isdigit() and len(after) <= 4 else 0.0  # noqa: PLR2004
            raise _Failure(f"status {response.status}", wait)

    def _body(self, response: urllib3.BaseHTTPResponse, url: str, most: int, ends: float) -> bytes:
        """The body, read to its end within limits of size and time."""
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise MalformedAnswerError(url, "encoding of an answer", "identity, as asked", encoding)
        parts, size = [], 0
        while part := response.read1(_CHUNK, decode_content=False):
            parts.append(part)
            size += len(part)
            if size > most:
                raise MalformedAnswerError(url, "length of an answer", f"at most {most} bytes", "more")
            if self._manners.clock() > ends:
                raise _Failure(f"no whole answer within {self._manners.timeout:g} seconds")
        declared = response.headers.get("Content-Length", "")
        if declared.isascii() and declared.isdigit() and size < int(declared[:20]):
            raise _Failure(f"{size} of {declared} bytes, then the end")
        return b"".join(parts)


def _said(data: bytes) -> str:
    """The beginning of what the server says of an error, or nothing."""
    return f": {data[:120].decode('utf-8', 'replace')}" if data else ""
