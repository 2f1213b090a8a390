"""HTTP/1.1 on h11, with a way of its own for plain messages.

* ``client``: client connection to a function's socket: stale checks, response limits, surplus bytes
* ``disconnects``: clients that leave, noticed by one epoll descriptor
* ``plain``: plain HTTP/1.1 messages (whole, of known length) parsed and written without h11
* ``request``: request heads of either parser, remembered, and the checks against request smuggling
* ``server``: server connection: requests of one client in order, each an exchange with an
  application; limits and idle connections
* ``tls``: TLS of the server: a client's socket whose bytes are encrypted
"""
