"""Lets papermill start kernels where loopback is down, as in a sandbox without any network.

papermill loads this module through its entry point for engines. Jupyter's kernels talk over TCP on 127.0.0.1 unless
told otherwise; without a loopback interface the kernel waits a minute and fails. Unix sockets need no interface.
"""

import socket
from typing import Any

from jupyter_client.manager import AsyncKernelManager
from papermill.engines import NBClientEngine, papermill_engines


class UnixSocketKernelManager(AsyncKernelManager):
    """A kernel manager that talks to its kernel over unix sockets."""

    transport = "ipc"


class UnixSocketEngine(NBClientEngine):  # type: ignore[misc]
    """papermill's own engine with kernels over unix sockets: `papermill --engine unix-sockets`."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **kwargs: Any) -> Any:
        """Execute the notebook, as papermill's own engine does."""
        kwargs.setdefault("kernel_manager_class", UnixSocketKernelManager)
        return super().execute_managed_notebook(nb_man, kernel_name, **kwargs)


def loopback_is_up() -> bool:
    """Whether a program on this machine can connect to itself over 127.0.0.1."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=1).close()
    except OSError:
        return False
    return True


if not loopback_is_up():
    papermill_engines.register(None, UnixSocketEngine)  # None is the engine of a plain `papermill` call
