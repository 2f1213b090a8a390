"""What is read and written without h11 is what h11 reads and writes."""

from __future__ import annotations

from http.client import responses
from unittest.mock import patch

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hostler.http1.client import ResponseHead, read_response
from hostler.http1.plain import Pairs, PlainHead, read_head, write_fields, write_response

NAMES = st.sampled_from(
    [
        b"Host",
        b"host",
        b"Content-Length",
        b"Connection",
        b"Transfer-Encoding",
        b"Expect",
        b"X-a",
        b"Upgrade",
        b"Te",
        b"content-type",
        b"x y",
        b"",
        b"X\r\nY",
        b"\xc3\xbc",
        b"_!#~",
    ]
)
VALUES = st.sampled_from(
    [
        b"0",
        b"1",
        b"3",
        b"+3",
        b"3, 3",
        b"chunked",
        b"close",
        b"keep-alive",
        b"Keep-Alive",
        b"x",
        b"",
        b" a  b ",
        b"\ta",
        b"a\tb",
        b"a\r\nb: c",
        b"a\nb",
        b"a\rb",
        b"a\x00",
        b"\xc3\xbc",
        b"a:b",
        b"a@b",
        b"100-continue",
        b"h2c",
        b"9" * 19,
    ]
)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=5)
BODIES = st.sampled_from([b"", b"x", b"abc", b"abc\r\n", b"GET / HTTP/1.1\r\n\r\n"])
ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r\n ", b" \r\n"])
PLAIN = [(b"Host", b"x"), (b"Content-Length", b"3")]


@st.composite
def messages(draw: st.DrawFn, starts: st.SearchStrategy[bytes], most: Pairs) -> bytes:
    """Plain ones, and some in which a little is different."""
    fields = draw(st.one_of(FIELDS, st.builds(lambda more: most + more, FIELDS)))
    end = draw(ENDS)
    lines = b"".join(
        name + b":" + draw(st.sampled_from([b"", b" "])) + value + end for name, value in fields
    )
    return draw(starts) + end + lines + b"\r\n" + draw(BODIES)


REQUESTS = messages(
    st.sampled_from(
        [b"POST /x HTTP/1.1"] * 4
        + [b"HEAD /x HTTP/1.1", b"POST /x HTTP/1.0", b"CONNECT /x HTTP/1.1", b"POST  /x HTTP/1.1"]
        + [b"POST /x y HTTP/1.1", b"GET * HTTP/1.1", b"GET http://a/ HTTP/1.1", b"get / HTTP/1.1"]
        + [b"POST /\xc3 HTTP/1.1"]
    ),
    PLAIN,
)
RESPONSES = messages(
    st.sampled_from(
        [b"HTTP/1.1 200 OK"] * 4
        + [b"HTTP/1.1 200", b"HTTP/1.1 100 Go on", b"HTTP/1.1 204 No", b"HTTP/1.0 200 OK"]
        + [b"HTTP/1.1 502 \xc3", b"HTTP/1.1  200 OK", b"HTTP/1.1 200 \t"]
    ),
    PLAIN[1:],
)


def read_request(data: bytes, max_head: int) -> tuple[PlainHead, bytes] | None:
    """The one request that ``data`` is, if it is plain."""
    head = read_head(data, max_head)
    if head is None or len(data) - len(head.raw) != head.length:
        return None
    return head, data[len(head.raw) :]


def server_events(data: bytes, *, closes: bool) -> list[h11.Event]:
    """What h11 makes of ``data``; after it the connection has to be as if nothing had come, or at
    its end."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    events: list[h11.Event] = []
    while not events or not isinstance(events[-1], h11.EndOfMessage):
        event = connection.next_event()
        assert isinstance(event, h11.Event)
        events.append(event)
    assert connection.trailing_data == (b"", False)
    assert not connection.they_are_waiting_for_100_continue
    connection.send(h11.Response(status_code=200, headers=[(b"Content-Length", b"0")]))
    connection.send(h11.EndOfMessage())
    if closes:
        assert connection.our_state is h11.MUST_CLOSE
    else:
        connection.start_next_cycle()  # raises if the connection has to be closed
    return events


@given(REQUESTS)
@example(
    b"POST /x?y HTTP/1.1\r\nHost: a:1\r\nConnection: Keep-Alive\r\nContent-Length:3\r\n\r\nabc"
)
@example(b"GET / HTTP/1.1\r\nhost:  a \r\n\r\n")
def test_requests_are_read_as_h11_does(data: bytes) -> None:
    plain = read_request(data, 1000)
    if plain is None:
        return
    found, content = plain
    head, *body, end = server_events(data, closes=found.closes)
    assert isinstance(head, h11.Request)
    assert (found.method, found.target, found.fields) == (
        head.method,
        head.target,
        list(head.headers),
    )
    assert content == b"".join(part.data for part in body if isinstance(part, h11.Data))
    assert end.headers == []  # type: ignore[attr-defined]


@given(RESPONSES)
@example(b"HTTP/1.1 200 OK\r\nContent-Length:3\r\n\r\n")
@example(b"HTTP/1.1 200 OK\r\nContent-Length:3\r\n\r\nab")
@example(b"HTTP/1.1 200 OK\r\nContent-Length:3\r\n\r\nabc")
def test_responses_are_read_as_h11_does(data: bytes) -> None:
    """Their begins, too: what is missing of the body follows."""
    plain = read_response(data, 1000)
    if plain is None:
        return
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="POST", target="/", headers=[("Host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    head = connection.next_event()
    assert isinstance(head, h11.Response)
    found, begin = plain
    theirs = ResponseHead.of(head)
    assert (found.status, found.length) == (head.status_code, theirs.length)
    assert found.for_caller == theirs.for_caller
    assert found.length is not None
    if rest := b"x" * (found.length - len(begin)):
        connection.receive_data(rest)
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    assert (begin + rest, type(event)) == (body, h11.EndOfMessage)
    assert connection.trailing_data == (b"", False)
    connection.start_next_cycle()


@given(
    st.sampled_from([200, 202, 404, 503, 599]),
    FIELDS | FIELDS.map(lambda f: PLAIN[1:] + f),
    BODIES,
    st.booleans(),
    st.integers(0, 5),
)
@example(200, PLAIN[1:], b"abc", False, 0)
@example(200, PLAIN[1:], b"abc", False, 5)
@example(200, [*PLAIN[1:], (b"Date", b"x")], b"abc", True, 5)
@example(200, [(b"Content-Length", b"3"), *PLAIN[1:]], b"abc", False, 1)
def test_responses_are_written_as_h11_does(
    status: int, fields: Pairs, body: bytes, closes: bool, cut: int
) -> None:
    def written() -> bytes | None:
        usual = tuple(fields[cut:])
        with patch("hostler.http1.plain.http_date", lambda: b"today"):
            return write_response(status, fields[:cut], body, usual=usual, closes=closes)

    found = written()
    assert written() == found  # of what is remembered
    if found is None:
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n")
    connection.next_event()
    connection.next_event()
    reason = responses.get(status, "").encode()
    if not any(name.lower() == b"date" for name, _ in fields):
        fields = [*fields, (b"date", b"today")]
    if closes:
        fields = [*fields, (b"connection", b"close")]
    head = h11.Response(status_code=status, headers=fields, reason=reason)
    parts = [connection.send(part) for part in (head, h11.Data(data=body), h11.EndOfMessage())]
    assert found == b"".join(part for part in parts if part)
    assert (connection.our_state is h11.MUST_CLOSE) == closes


@given(FIELDS)
def test_fields_that_h11_refuses_are_not_written(fields: Pairs) -> None:
    lines = write_fields(fields)
    if lines is not None:
        assert lines == b"".join(b"%b: %b\r\n" % field for field in fields)
        unframed = [field for field in fields if field[0].lower() not in FRAMING]
        head = h11.Response(status_code=200, headers=unframed)
        assert head.headers.raw_items() == unframed


FRAMING = (b"content-length", b"transfer-encoding")


@pytest.mark.parametrize(
    "data",
    [
        b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nab",
        b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcd",
        b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n",
        b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: x\r\nConnection: close, x\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nConnection: close\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a@b\r\n\r\n",
        b"POST /x HTTP/1.1\r\n\r\n",
        b"HEAD /x HTTP/1.1\r\nHost: x\r\n\r\n",
        b"",
    ],
)
def test_what_is_not_plain_is_left_to_h11(data: bytes) -> None:
    assert read_request(data, 1000) is None


REQUEST = b"POST /x HTTP/1.1\r\nHost:x\r\nContent-Length: 3\r\nX: a b\r\n\r\nabc"


def test_plain_ones_are_taken() -> None:
    request = read_request(REQUEST, len(REQUEST))
    assert request is not None
    head, body = request
    assert body == b"abc"
    assert head.fields[2] == (b"x", b"a b")
    assert not head.closes
    closing = read_head(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Close\r\n\r\n", 1000)
    assert closing is not None
    assert closing.closes
    assert read_request(REQUEST, len(REQUEST) - 3) is None  # with all blanks it is too long
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
    response = read_response(answer, 38)
    assert response is not None
    assert response[0].for_caller == (("Content-Length", "3"),)
    assert response[1] == b"abc"
    assert read_response(answer, 37) is None  # the head is too long
    fields = [(b"Content-Length", b"3"), (b"Date", b"today")]
    dated = answer.replace(b"\r\n\r\n", b"\r\nDate: today\r\n\r\n")
    assert write_response(200, fields, b"abc") == dated
    assert write_fields([(b"X", b"a\r\nY: b")]) is None
