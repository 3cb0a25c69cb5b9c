"""How notebooks' kernels are started: over unix sockets, with their own words in a file, in an event loop that ends.

papermill loads this module through its entry point for engines. Jupyter's kernels talk over TCP on 127.0.0.1 unless
told otherwise; without a loopback interface, as in a sandbox without any network, the kernel waits a minute and fails.
Unix sockets need no interface, and no port that another program may take between its choice and its use.
"""

import contextlib
import socket
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import ensure_event_loop
from papermill.engines import NBClientEngine, papermill_engines
from traitlets import Unicode


class UnixSocketKernelManager(AsyncKernelManager):
    """A kernel manager that talks to its kernel over unix sockets."""

    transport = "ipc"

    def _ip_default(self) -> str:
        """On Linux a name without a file, whose path may be too long for a socket."""
        return f"@visa-{uuid.uuid4().hex}" if sys.platform == "linux" else super()._ip_default()


class StageKernelManager(UnixSocketKernelManager):
    """The kernels of `visa run`: what one writes to its stderr itself, as why it did not start, goes to a file."""

    transport = "ipc" if sys.platform == "linux" else "tcp"
    stderr_file = Unicode(help="Path of that file.").tag(config=True)

    async def start_kernel(self, **kwargs: Any) -> None:  # type: ignore[override]
        """Start the kernel; arguments as for the base class."""
        with Path(self.stderr_file).open("wb") as stderr:
            await super().start_kernel(stderr=stderr, **kwargs)


class UnixSocketEngine(NBClientEngine):  # type: ignore[misc]
    """papermill's own engine with kernels over unix sockets: `papermill --engine unix-sockets`."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **kwargs: Any) -> Any:
        """Execute the notebook, as papermill's own engine does."""
        kwargs.setdefault("kernel_manager_class", UnixSocketKernelManager)
        return super().execute_managed_notebook(nb_man, kernel_name, **kwargs)


@contextlib.contextmanager
def closed_event_loop() -> Iterator[None]:
    """Close the event loop that nbclient takes: it closes none, and makes one for each stage of a worker.

    One left to the garbage collector may lose its sockets first, and then ends in a traceback on the terminal.
    """
    try:
        yield
    finally:
        loop = ensure_event_loop()
        if not loop.is_running():  # of a caller in Jupyter
            loop.close()


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
