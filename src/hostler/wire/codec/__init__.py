"""Frames as protobuf messages, and back.

* ``fast``: measured hand codec for frames and load hints; property tests prove equality with
  betterproto
* ``messages``: all messages by betterproto, and the choice of the fast codec where one exists
* ``runner_pb``: generated from proto/runner.proto; not counted
"""
