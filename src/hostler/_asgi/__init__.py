"""What the HTTP applications share: ASGI's types, whole answers, and the request's side of an
exchange.

* ``access``: access rules: host names, origins, bearer tokens and sessions
* ``middleware``: middleware chains, the guard that turns exceptions into responses, CORS
* ``replies``: responses: JSON documents, Fn's error documents, request ids
* ``request_body``: request body of one exchange, and the news that its client has gone
* ``types``: ASGI types, lifespan, and the extension of hostler's own server
"""
