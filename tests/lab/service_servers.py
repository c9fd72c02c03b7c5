"""What the pods of these tests run: who are you, from where do I come, what does this name mean.

A line with a name is answered with the name's addresses, as the pod's own resolver finds them; an
empty line with the pod, its node, and the address that the client has.
"""

import contextlib
import os
import socket
import sys

PATIENCE_S = 60.0


def answer(line: str, client: str) -> str:
    if not line:
        return f"{os.environ['POD']} {os.environ['NODE']} {client.removeprefix('::ffff:')}"
    try:
        found = socket.getaddrinfo(line, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return f"error {error.errno}"
    return " ".join(sorted({str(one[4][0]) for one in found}))


def main(port: int) -> None:
    with socket.create_server(
        ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64
    ) as server:
        while True:
            connection, client = server.accept()
            with connection, contextlib.suppress(OSError), connection.makefile("rw") as stream:
                connection.settimeout(PATIENCE_S)
                stream.write(answer(stream.readline().strip(), client[0]) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
