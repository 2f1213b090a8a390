"""Many small calls on one stream (``EngageMany``), between two of hostler's own nodes.

* ``client``: a load balancer's end of a shared stream
* ``envelope``: envelopes of `EngageMany`, encoded and decoded
* ``server``: a runner's end of a shared stream, and its reused tasks
* ``stream``: a shared stream and its calls: batching, credit, ends
"""
