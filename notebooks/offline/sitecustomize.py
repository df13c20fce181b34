"""Refuses every connection to another computer: on the path while nbval runs the lessons."""

import socket

LOCAL = ("127.0.0.1", "::1", "localhost")


def guard(function):
    """The same function of a socket, for addresses of this computer only."""

    def guarded(self, address):
        if isinstance(address, tuple) and address[0] not in LOCAL:
            raise OSError("a lesson runs without a network")
        return function(self, address)

    return guarded


def look_up(host, *rest, _real=socket.getaddrinfo, **options):
    """The addresses of a name that means this computer."""
    if host not in (None, "", *LOCAL):
        raise OSError("a lesson runs without a network")
    return _real(host, *rest, **options)


socket.socket.connect = guard(socket.socket.connect)
socket.socket.connect_ex = guard(socket.socket.connect_ex)
socket.getaddrinfo = look_up
