"""The address of every name: the test says it, for no name server knows the functions of a test cluster."""

import os
import socket

HTTP = os.environ["ROUSE_HTTP"]
"""URL of a function of `examples/hello`, at zero."""
WEBSOCKET = os.environ["ROUSE_WEBSOCKET"]
"""URL of a function that echoes WebSocket messages, at zero."""

_ask = socket.getaddrinfo


def _answer(host, port, *args, **kwargs):
    return _ask(os.environ["ROUSE_ADDRESS"], port, *args, **kwargs)


socket.getaddrinfo = _answer
