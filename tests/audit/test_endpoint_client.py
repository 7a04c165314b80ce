"""The client against servers on this machine: patient where transport fails, and nowhere else."""

from __future__ import annotations

import ipaddress
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from prune_verify.audit.endpoint_client import Client, Manners, read_headers
from prune_verify.audit.endpoint_protocol import EndpointError, MalformedAnswerError, parse_address
from prune_verify.checker.errors import MalformedInputError
from tests.served_model import Reply, Request, Served

pytestmark = pytest.mark.loopback


class Time:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now, self.waits = 100.0, list[float]()

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def clock(self) -> float:
        return self.now


def client(served: Served, **manners: object) -> tuple[Client, Time]:
    time = Time()
    given = {"rate": 0.0, "timeout": 5.0, "retries": 3, "sleep": time.sleep, "clock": time.clock}
    return Client(parse_address(served.url), Manners(**(given | manners))), time  # type: ignore[arg-type]


def in_turn(*replies: Reply) -> Callable[[Request], Reply]:
    """One reply after another; the last one for ever."""
    left = list(replies)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def test_a_query_is_answered_with_the_bytes_that_were_sent() -> None:
    with Served(in_turn(Reply(b'{"a": 1}'))) as served:
        one, time = client(served, headers={"Authorization": "Bearer x"})
        assert one.infer(b"{}", 100) == b'{"a": 1}'
    (asked,) = served.requests
    assert (asked.method, asked.path, asked.body) == ("POST", "/v2/models/digits/infer", b"{}")
    assert (asked.headers["Authorization"], asked.headers["Accept-Encoding"]) == ("Bearer x", "identity")
    assert "Connection" not in asked.headers
    assert time.waits == []


def test_every_request_has_a_connection_of_its_own() -> None:
    with Served(in_turn(Reply(b"{}"))) as served:
        one, _ = client(served)
        for _ in range(5):
            one.infer(b"{}", 100)
    assert len({asked.peer for asked in served.requests}) == 5


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again_with_growing_waits(status: int) -> None:
    busy = Reply(b"busy", status)
    with Served(in_turn(busy, busy, busy, Reply(b"{}"))) as served:
        one, time = client(served)
        assert one.infer(b"{}", 100) == b"{}"
    assert (len(served.requests), time.waits) == (4, [0.5, 1.0, 2.0])


def test_the_server_may_ask_for_a_longer_wait_but_not_for_any() -> None:
    busy = [Reply(b"", 503, {"Retry-After": text}) for text in ("7", "86400", "Fri, 01 Jan 2100 00:00:00 GMT")]
    with Served(in_turn(*busy, Reply(b"{}"))) as served:
        one, time = client(served)
        one.infer(b"{}", 100)
    assert time.waits == [7.0, 1.0, 2.0]


def test_tries_come_to_an_end() -> None:
    with Served(in_turn(Reply(b"", 503))) as served:
        one, _ = client(served, retries=2)
        with pytest.raises(EndpointError) as caught:
            one.infer(b"{}", 100)
    assert (caught.value.rule, caught.value.got, len(served.requests)) == ("an answer in 3 tries", "status 503", 3)
    assert caught.value.path == f"POST {served.url}/infer"


REFUSALS = [(400, "bad shape"), (401, "who are you"), (404, "no such model"), (422, "no"), (501, "no"), (204, "")]


@pytest.mark.parametrize(("status", "said"), REFUSALS)
def test_a_refusal_is_not_tried_again_and_is_shown(status: int, said: str) -> None:
    with Served(in_turn(Reply(said.encode(), status))) as served:
        one, _ = client(served)
        with pytest.raises(EndpointError) as caught:
            one.infer(b"{}", 100)
    assert (caught.value.path, len(served.requests)) == (f"{served.url}/infer", 1)
    assert caught.value.got == f"status {status}" + (f": {said}" if said else "")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_nowhere(status: int) -> None:
    with Served(in_turn(Reply(b"{}"))) as other:
        with Served(in_turn(Reply(b"", status, {"Location": other.url}))) as served:
            one, _ = client(served)
            with pytest.raises(EndpointError) as caught:
                one.infer(b"{}", 100)
        assert (caught.value.got, len(served.requests), other.requests) == (f"a redirect to {other.url}", 1, [])


def test_a_server_that_is_not_there_is_named_after_all_tries() -> None:
    with Served(in_turn(Reply())) as gone:
        pass
    one, time = client(gone, retries=2)
    with pytest.raises(EndpointError) as caught:
        one.require_ready()
    assert caught.value.path == f"GET {gone.origin}/v2/health/ready"
    assert ("refused" in caught.value.got, time.waits) == (True, [0.5, 1.0])


def test_a_body_that_is_cut_off_is_tried_again() -> None:
    with Served(in_turn(Reply(b'{"a"', length=10), Reply(b'{"a": 1}'))) as served:
        one, _ = client(served)
        assert one.infer(b"{}", 100) == b'{"a": 1}'
    assert len(served.requests) == 2


def test_a_body_that_comes_too_slowly_is_tried_again() -> None:
    one: Client
    clock = Time()
    slow = Reply(b"x" * 8, pause=lambda: clock.sleep(1.0), piece=1)
    with Served(in_turn(slow, Reply(b"{}"))) as served:
        one = Client(parse_address(served.url), Manners(rate=0, timeout=5.0, sleep=clock.sleep, clock=clock.clock))
        assert one.infer(b"{}", 100) == b"{}"
    assert len(served.requests) == 2


def test_a_server_that_says_nothing_is_left_after_the_time_out() -> None:
    over = threading.Event()

    def silent(_: Request) -> Reply:
        over.wait(10)
        return Reply(b"{}")

    with Served(silent) as served:
        one, _ = client(served, timeout=0.2, retries=1)
        with pytest.raises(EndpointError) as caught:
            one.infer(b"{}", 100)
        over.set()
    assert (caught.value.rule, len(served.requests)) == ("an answer in 2 tries", 2)
    assert "timed out" in caught.value.got


def test_a_huge_answer_is_no_answer() -> None:
    with Served(in_turn(Reply(b"[" + b"1," * 5_000_000))) as served:
        one, _ = client(served)
        with pytest.raises(MalformedAnswerError) as caught:
            one.infer(b"{}", 2**20)
    assert (caught.value.rule, caught.value.expected) == ("length of an answer", "at most 1048576 bytes")


def test_an_answer_that_unpacks_is_not_unpacked() -> None:
    with Served(in_turn(Reply(b"\x1f\x8b", headers={"Content-Encoding": "gzip"}))) as served:
        one, _ = client(served)
        with pytest.raises(MalformedAnswerError) as caught:
            one.infer(b"{}", 100)
    assert (caught.value.rule, caught.value.got) == ("encoding of an answer", "gzip")


def test_no_more_requests_than_the_rate_allows() -> None:
    with Served(in_turn(Reply(b"{}"))) as served:
        one, time = client(served, rate=4.0)
        for _ in range(9):
            one.infer(b"{}", 100)
    assert (time.waits, time.now) == ([0.25] * 8, 102.0)


READY = [(200, None), (404, None), (405, None), (400, "status 400"), (503, "status 503")]


@pytest.mark.parametrize(("status", "got"), READY)
def test_a_server_is_ready_or_does_not_say(status: int, got: str | None) -> None:
    with Served(in_turn(Reply(b"", status))) as served:
        one, _ = client(served, retries=1)
        if got is None:
            one.require_ready()
        else:
            with pytest.raises(EndpointError) as caught:
                one.require_ready()
            assert caught.value.got == got


def test_a_model_that_is_not_there_is_named() -> None:
    with Served(in_turn(Reply(b'{"error": "unknown"}', 404))) as served:
        one, _ = client(served)
        with pytest.raises(EndpointError) as caught:
            one.metadata()
    assert (caught.value.path, caught.value.rule) == (served.url, "a model of this name")
    assert caught.value.got == 'status 404: {"error": "unknown"}'


# --- TLS ---


def certificate(folder: Path) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = built.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    built = built.add_extension(address, critical=False).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    signed = built.add_extension(identifier, critical=False).sign(key, hashes.SHA256())
    path = folder / "server.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(signed.public_bytes(Encoding.PEM) + private)
    return path


def test_a_tls_certificate_that_nobody_vouches_for_is_refused_at_once(tmp_path: Path) -> None:
    path = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    with Served(in_turn(Reply(b"{}")), tls=context) as served:
        one, time = client(served)
        with pytest.raises(EndpointError) as caught:
            one.infer(b"{}", 100)
        assert ("TLS certificate" in caught.value.rule, time.waits, served.requests) == (True, [], [])
        vouched, _ = client(served, authorities=path)
        assert vouched.infer(b"{}", 100) == b"{}"


# --- headers and proxies ---


def test_headers_come_from_a_file_and_are_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "headers"
    path.write_text("Authorization: Bearer a:b\n\nX-Tenant: one\n")
    found = read_headers(path)
    assert found == {"Authorization": "Bearer a:b", "X-Tenant": "one"}
    assert "Bearer" not in repr(Manners(headers=found))


@pytest.mark.parametrize(
    "line", ["no colon", ": value", "A B: c", "Host: x", "Connection: keep-alive", "X: \x01", "Content-Length: 3"]
)
def test_a_line_that_is_no_header_is_refused_with_its_number(line: str, tmp_path: Path) -> None:
    path = tmp_path / "headers"
    path.write_text(f"X-One: 1\n{line}\n")
    with pytest.raises(MalformedInputError) as caught:
        read_headers(path)
    assert caught.value.path == f"{path}: line 2"


def test_a_proxy_is_asked_instead() -> None:
    with Served(in_turn(Reply(b"{}"))) as proxy:
        address = parse_address("http://model.invalid/v2/models/digits")
        one = Client(address, Manners(rate=0, proxy=proxy.origin))
        assert one.infer(b"{}", 100) == b"{}"
    assert [asked.path for asked in proxy.requests] == ["http://model.invalid/v2/models/digits/infer"]


def test_what_is_no_proxy_is_refused() -> None:
    with pytest.raises(MalformedInputError) as caught:
        Client(parse_address("http://a/v2/models/m"), Manners(proxy="socks9://x"))
    assert caught.value.path == "--proxy"
