"""Which network interface the processes of an expert use, where they are on several machines."""

from __future__ import annotations

import fcntl
import os
import socket
import struct

ASK_ADDRESS = 0x8915  # SIOCGIFADDR of Linux: the IPv4 address of an interface
VARIABLE = "GLOO_SOCKET_IFNAME"


def use_own_interface() -> None:
    """Let gloo take the interface by which Ray reaches this machine, unless the user has named one.

    By itself gloo takes that of the host's name, which on Debian and Ubuntu is often the loopback.
    """
    import ray

    name = interface_of(ray.util.get_node_ip_address())
    if name is not None:
        os.environ.setdefault(VARIABLE, name)


def interface_of(address: str) -> str | None:
    """The name of the interface that has an IPv4 address; None where there is none, or it is not told."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            try:
                told = fcntl.ioctl(asked.fileno(), ASK_ADDRESS, struct.pack("256s", name.encode()[:15]))
            except OSError:  # it has no such address
                continue
            if socket.inet_ntoa(told[20:24]) == address:
                return name
    return None
