"""What handlers answer with."""

from __future__ import annotations

import msgspec

from hostler._asgi import Reply, encoded_reply

NO_CONTENT = Reply(204)


def document_reply(document: msgspec.Struct) -> Reply:
    """200 and the document, in the order of its fields, escaped as by Go's encoder."""
    return encoded_reply(msgspec.json.encode(document))
