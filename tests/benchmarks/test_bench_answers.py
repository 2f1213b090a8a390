"""The load generator's parser must agree with h11 on every answer, however it is cut."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks._answers import Answer, BadAnswer


def encode(body: list[bytes], chunked: bool, close: bool) -> bytes:
    server = h11.Connection(h11.SERVER)
    server.receive_data(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    while server.next_event() is not h11.NEED_DATA and server.their_state is not h11.DONE:
        pass
    headers = [("Transfer-Encoding", "chunked")]
    if not chunked:
        headers = [("Content-Length", str(sum(map(len, body))))]
    if close:
        headers.append(("Connection", "close"))
    data = server.send(h11.Response(status_code=200, headers=headers)) or b""
    for part in body:
        data += server.send(h11.Data(part)) or b""
    return data + (server.send(h11.EndOfMessage()) or b"")


@given(
    body=st.lists(st.binary(max_size=50), max_size=5),
    chunked=st.booleans(),
    close=st.booleans(),
    cuts=st.lists(st.integers(0, 400), max_size=5),
)
def test_any_answer_in_any_pieces(
    body: list[bytes], chunked: bool, close: bool, cuts: list[int]
) -> None:
    data = encode(body, chunked, close)
    ends = sorted({*(cut for cut in cuts if 0 < cut < len(data)), len(data)})
    answer, at = Answer(), 0
    for end in ends:
        complete = answer.feed(data[at:end])
        assert complete == (end == len(data))
        at = end
    assert answer.status == 200
    assert answer.body == b"".join(body)
    assert answer.close == close


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"this is not HTTP\r\n\r\n", "not an answer"),
        (b"HTTP/1.1 abc\r\n\r\n", "not an answer"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "without a length"),
    ],
)
def test_bad_answers(data: bytes, error: str) -> None:
    with pytest.raises(BadAnswer, match=error):
        Answer().feed(data)
