"""Requests that one server may take for something else than another does."""

from __future__ import annotations

HIDDEN = b"POST /invoke/fn1?hidden HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
HEAD = b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"Transfer-Encoding: chunked"
ONE = b"1\r\nx\r\n0\r\n\r\n"
BROKEN_BODY = {
    "a size that is no number": b"z\r\nx\r\n0\r\n\r\n",
    "a size with a prefix": b"0x1\r\nx\r\n0\r\n\r\n",
    "a size with a sign": b"+1\r\nx\r\n0\r\n\r\n",
    "a negative size": b"-1\r\nx\r\n0\r\n\r\n",
    "a blank before the size": b" 1\r\nx\r\n0\r\n\r\n",
    "an underscore in the size": b"1_0\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n",
    "a size beyond 64 bits": b"1" + b"0" * 21 + b"\r\nx\r\n0\r\n\r\n",
    "no size": b"\r\nx\r\n0\r\n\r\n",
    "a chunk longer than its size": b"1\r\nxyz\r\n0\r\n\r\n",
    "a chunk without its end": b"1\r\nxXX0\r\n\r\n",
    "a size with a NUL": b"1\x00\r\nx\r\n0\r\n\r\n",
    "trailers that are no headers": b"0\r\nPOST / HTTP/1.1\r\n\r\n",
    "trailers that are folded": b"0\r\nX: y\r\n z\r\n\r\n",
    "a trailer behind a bare LF": b"0\r\nX: y\nZ: z\r\n\r\n",
    "trailers that end with LF LF": b"0\r\nX: y\n\n",
    "a trailer with a bare CR": b"0\r\nX: y\rZ\r\n\r\n",
    "an end of CR LF LF": b"0\r\n\n",
    "an end of LF CR LF": b"0\n\r\n",
    "an end of LF LF": b"0\n\n",
    "an end of CR CR": b"0\r\r",
    "a size that ends with LF": b"1\nx\r\n0\r\n\r\n",
    "a chunk that ends with LF": b"1\r\nx\n0\r\n\r\n",
    "a chunk that ends with two other bytes": b"1\r\nxyz0\r\n\r\n",
    "a blank behind the size": b"1 \r\nx\r\n0\r\n\r\n",
    "a tab behind the size": b"1\t\r\nx\r\n0\r\n\r\n",
    "a CR behind the size": b"1\r\r\nx\r\n0\r\n\r\n",
    "a CR before the extension": b"1\r;a\r\nx\r\n0\r\n\r\n",
    "an extension with a bare CR": b"1;a\rb\r\nx\r\n0\r\n\r\n",
    "an extension with a bare LF": b"1;a\nx\r\n0\r\n\r\n",
    "an extension with a NUL": b"1;\x00\r\nx\r\n0\r\n\r\n",
    "an extension without a size": b";a\r\nx\r\n0\r\n\r\n",
    "a size of 17 digits": b"0" * 16 + b"1\r\nx\r\n0\r\n\r\n",
    "a size with a form feed": b"\x0c1\r\nx\r\n0\r\n\r\n",
    "a comma in the size": b"1,1\r\nx\r\n0\r\n\r\n",
    "a fraction": b"1.0\r\nx\r\n0\r\n\r\n",
}


def post(*lines: bytes, body: bytes = b"") -> bytes:
    return HEAD + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def mangled(name: bytes, value: bytes) -> dict[str, list[bytes]]:
    """The ways to write a header line that public collections know (those of PortSwigger's HTTP
    Request Smuggler, and of the HTTP Garden) which some servers take for that header, and some
    for another, or for two lines. By name; the lines of each."""
    line = name + b": " + value
    odd = {
        "underscore": [line.replace(b"-", b"_")],
        "blank in the name": [line.replace(b"-", b" ")],
        "backslash in the name": [line.replace(b"-", b"\\")],
        "escape in the name": [line.replace(b"E", b"%45").replace(b"L", b"%4c")],
        "another letter in the name": [line.replace(b"e", b"\x82", 1)],
        "no blank": [name + b":" + value],
        "two blanks": [name + b":  " + value],
        "junk before the colon": [name + b" x: " + value],
        "folded before the value": [name + b":", b" " + value],
        "folded by a tab": [name + b":", b"\t" + value],
        "folded with a bare LF": [name + b":\n " + value],
        "folded before the colon": [name + b"\n : " + value],
        "folded into another header": [b"X: y", b" " + line],
        "folded into another header by a tab": [b"X: y", b"\t" + line],
        "folded behind the value": [line, b" , x"],
        "a vertical tab on a line of its own": [name + b": \n\x0b" + value],
        "behind a bare CR": [b"X: y\r" + line],
        "behind a bare LF": [b"X: y\n" + line],
        "behind CR LF CR": [b"X: y", b"\r" + line],
        "behind two bare LF": [b"X: y\n\n" + line],
        "before a bare LF": [line + b"\nX: y"],
        "before a bare CR": [line + b"\rX: y"],
        "a CR in the name": [line[:3] + b"\r" + line[3:]],
        "upper case": [name.upper() + b": " + value.upper()],
        "mixed case": [name.swapcase() + b": " + value.swapcase()],
        "named by Connection": [b"Connection: " + name, line],
        "in quotes": [name + b': "' + value + b'"'],
        "in apostrophes": [name + b": '" + value + b"'"],
        "cut short": [line[:-1]],
        "behind a comma": [name + b": ," + value],
        "before a comma": [line + b","],
        "twice in a list": [line + b", " + value],
        "twice": [line, line],
        "behind another": [name + b": identity", line],
        "before another": [line, name + b": identity"],
        "in a list": [name + b": identity, " + value + b", identity"],
        "another header": [b"Content-Encoding: " + value],
        "an odd blank": [name + b":\xa0" + value],
        "a byte FF for a blank": [name + b":\xff" + value],
    }
    for code in (0, 1, 8, 9, 11, 12, 13, 31, 127, 133, 160):
        char = bytes([code])
        odd[f"{code} before the name"] = [char + line]
        odd[f"{code} before the colon"] = [name + char + b": " + value]
        odd[f"{code} behind the colon"] = [name + b":" + char + value]
        odd[f"{code} before the value"] = [name + b": " + char + value]
        odd[f"{code} behind the value"] = [line + char]
    return odd


SIZED = b"Content-Length: %d\r\n" % len(HIDDEN)
CHUNK = b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)
HOST = b" HTTP/1.1\r\nHost: x\r\n"
BURIED = {
    "CL.0, a document": (b"GET /version" + HOST + SIZED, HIDDEN),
    "CL.0, no such path": (b"POST /nothing" + HOST + SIZED, HIDDEN),
    "CL.0, not this method": (b"DELETE /version" + HOST + SIZED, HIDDEN),
    "CL.0, a redirect": (b"GET /version/" + HOST + SIZED, HIDDEN),
    "CL.0, a HEAD": (b"HEAD /version" + HOST + SIZED, HIDDEN),
    "CL.0, no such function": (b"POST /invoke/nothing" + HOST + SIZED, HIDDEN),
    "TE.0": (b"OPTIONS /" + HOST + CHUNKED + b"\r\n", CHUNK),
    "TE.0, a document": (b"GET /version" + HOST + CHUNKED + b"\r\n", CHUNK),
    "an expectation": (b"GET /version" + HOST + SIZED + b"Expect: 100-continue\r\n", HIDDEN),
    "another expectation": (b"GET /version" + HOST + SIZED + b"Expect: x\r\n", HIDDEN),
    "an upgrade": (
        b"GET /version" + HOST + SIZED + b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
        HIDDEN,
    ),
    "a body over the limit": (HEAD + b"Content-Length: 99999999\r\n", HIDDEN),
    "chunks over the limit": (HEAD + CHUNKED + b"\r\n", b"fffffff\r\n" + b"x" * 200_000 + HIDDEN),
    "the end of the connection": (HEAD + b"Content-Length: 0\r\nConnection: close\r\n", HIDDEN),
    "the end among options": (HEAD + b"Content-Length: 0\r\nConnection: x, close\r\n", HIDDEN),
    "HTTP/1.0": (b"POST /invoke/fn1 HTTP/1.0\r\nContent-Length: 0\r\n", HIDDEN),
    "a CONNECT": (b"CONNECT x:80" + HOST, HIDDEN),
    "a PRI": (b"PRI * HTTP/2.0\r\n", b"SM\r\n\r\n" + HIDDEN),
}
"""By name: heads without their end, and what comes behind them, of which nothing is a request."""

REFUSED = {
    "CL.TE": post(b"Content-Length: %d" % (5 + len(HIDDEN)), CHUNKED, body=b"0\r\n\r\n" + HIDDEN),
    "TE.CL": post(CHUNKED, b"Content-Length: 4", body=b"%x\r\n" % len(HIDDEN) + HIDDEN + b"\r\n"),
    "CL.TE of length 0": post(b"Content-Length: 0", CHUNKED, body=b"0\r\n\r\n" + HIDDEN),
    "TE.TE, the second unknown": post(CHUNKED, b"Transfer-Encoding: x", body=ONE + HIDDEN),
    "TE.TE, the first unknown": post(b"Transfer-Encoding: x", CHUNKED, body=ONE + HIDDEN),
    "TE twice": post(CHUNKED, CHUNKED, body=ONE + HIDDEN),
    "TE list": post(b"Transfer-Encoding: chunked, identity", body=ONE + HIDDEN),
    "TE list of two chunked": post(b"Transfer-Encoding: chunked, chunked", body=ONE + HIDDEN),
    "TE identity": post(b"Transfer-Encoding: identity", body=HIDDEN),
    "TE with a prefix": post(b"Transfer-Encoding: xchunked", body=ONE + HIDDEN),
    "TE in quotes": post(b'Transfer-Encoding: "chunked"', body=ONE + HIDDEN),
    "TE with a vertical tab": post(b"Transfer-Encoding: \x0bchunked", body=ONE + HIDDEN),
    "TE with a blank before the colon": post(b"Transfer-Encoding : chunked", body=ONE + HIDDEN),
    "TE with a NUL": post(b"Transfer-Encoding: chunked\x00", body=ONE + HIDDEN),
    "TE of HTTP/1.0": b"POST /invoke/fn1 HTTP/1.0\r\n" + CHUNKED + b"\r\n\r\n" + ONE + HIDDEN,
    "CL twice": post(b"Content-Length: 0", b"Content-Length: 9", body=HIDDEN),
    "CL list": post(b"Content-Length: 0, 9", body=HIDDEN),
    "CL with a plus": post(b"Content-Length: +1", body=b"x" + HIDDEN),
    "CL negative": post(b"Content-Length: -1", body=HIDDEN),
    "CL in hex": post(b"Content-Length: 0x1", body=b"x" + HIDDEN),
    "CL empty": post(b"Content-Length:", body=HIDDEN),
    "CL with an underscore": post(b"Content-Length: 1_0", body=b"x" * 10 + HIDDEN),
    "CL in Arabic digits": post(b"Content-Length: \xd9\xa1", body=b"x" + HIDDEN),
    "CL with a blank before the colon": post(b"Content-Length : 1", body=b"x" + HIDDEN),
    "CL folded into nothing": post(b"Content-Length:", b" 0", b" 9", body=HIDDEN),
    "Host twice": post(b"Host: y", b"Content-Length: 0", body=HIDDEN),
    "Host twice, the same": post(b"Host: x", b"Content-Length: 0", body=HIDDEN),
    "Host missing": b"POST /invoke/fn1 HTTP/1.1\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "Host with a blank": b"POST /invoke/fn1 HTTP/1.1\r\nHost: a b\r\n\r\n" + HIDDEN,
    "Host with a user": b"POST /invoke/fn1 HTTP/1.1\r\nHost: a@b\r\n\r\n" + HIDDEN,
    "Host with a path": b"POST /invoke/fn1 HTTP/1.1\r\nHost: a/b\r\n\r\n" + HIDDEN,
    "obs-fold before the first header": b"POST /invoke/fn1 HTTP/1.1\r\n Host: x\r\n\r\n" + HIDDEN,
    "a header without a colon": post(b"Content-Length", body=HIDDEN),
    "a header without a name": post(b": 5", body=HIDDEN),
    "a name with a blank": post(b"X Y: 5", body=HIDDEN),
    "a CR alone": post(b"X: 1\rContent-Length: 9", body=HIDDEN),
    "a CR and a NUL": post(b"X: 1\r\x00Content-Length: 9", body=HIDDEN),
    "a control character in a value": post(b"X: a\x01b", body=HIDDEN),
    "CL twice, the same": post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc" + HIDDEN),
    "CL list of the same": post(b"Content-Length: 3, 3", body=b"abc" + HIDDEN),
    "CL behind a bare LF": post(b"X: 1\nContent-Length: 3", body=b"abc" + HIDDEN),
    "TE folded": post(b"Transfer-Encoding:", b" chunked", body=ONE + HIDDEN),
    "obs-fold": post(b"X: a", b" b", b"\tc", b"Content-Length: 3", body=b"abc" + HIDDEN),
    "a bare LF behind the request line": HEAD.replace(b"\r\n", b"\n", 1) + b"\r\n" + HIDDEN,
    "bare LFs alone": post(b"Content-Length: 3").replace(b"\r", b"") + b"abc" + HIDDEN,
    "a head that ends with LF LF": HEAD + b"X: 1\n\n" + HIDDEN,
    "a head that ends with LF CR LF": HEAD + b"X: 1\n\r\n" + HIDDEN,
    "a head that ends with CR LF LF": HEAD + b"\n" + HIDDEN,
    "a blank before the request line": b" " + HEAD + b"\r\n" + HIDDEN,
    "tabs in the request line": HEAD.replace(b" ", b"\t", 2) + b"\r\n" + HIDDEN,
    "a LF in the request line": HEAD.replace(b" HTTP", b"\nHTTP") + b"\r\n" + HIDDEN,
    "HTTP/0.9": b"GET /invoke/fn1\r\n\r\n" + HIDDEN,
    "HTTP/1": HEAD.replace(b"/1.1", b"/1") + b"\r\n" + HIDDEN,
    "HTTP/1.10": HEAD.replace(b"/1.1", b"/1.10") + b"\r\n" + HIDDEN,
    "http/1.1": HEAD.replace(b"HTTP", b"http") + b"\r\n" + HIDDEN,
    "HTTP/9.9": HEAD.replace(b"/1.1", b"/9.9") + b"\r\n" + HIDDEN,
    "HTTP/0.0": HEAD.replace(b"/1.1", b"/0.0") + b"\r\n" + HIDDEN,
    "HTTP/1.2": HEAD.replace(b"/1.1", b"/1.2") + b"\r\n" + HIDDEN,
    "HTTP/2.0": HEAD.replace(b"/1.1", b"/2.0") + b"\r\n" + HIDDEN,
    "a third version": b"POST /invoke/fn1 HTTP/1.1 HTTP/1.1\r\nHost: x\r\n\r\n" + HIDDEN,
    "a target with a user": b"POST http://a@x/invoke/fn1" + HOST + b"\r\n" + HIDDEN,
    "a target without a host": b"POST http:///invoke/fn1" + HOST + b"\r\n" + HIDDEN,
    "a target with an odd host": b"POST http://a\\b/invoke/fn1" + HOST + b"\r\n" + HIDDEN,
    "a target with a path for a scheme": b"POST a/b://x/invoke/fn1" + HOST + b"\r\n" + HIDDEN,
    "a target of another scheme": b"POST file://x/invoke/fn1" + HOST + b"\r\n" + HIDDEN,
    "a target that is no path": b"POST invoke/fn1" + HOST + b"\r\n" + HIDDEN,
    "a target with a fragment": b"POST /invoke/fn1#x" + HOST + b"\r\n" + HIDDEN,
    "a blank in the path": b"POST /invoke/fn1 /x HTTP/1.1\r\nHost: x\r\n\r\n" + HIDDEN,
}
"""By name. Refused with their heads: no call is made at all."""
