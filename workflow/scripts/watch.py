"""Follow a running study in a browser: `python -B workflow/scripts/watch.py results/demo`. Ctrl-C ends it."""

import argparse
import gc
import os
import signal
import sys
import webbrowser
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run by hand, by make and by a rule that is no job

from rich.console import Console

from memedynamics.watch_server import Server
from memedynamics.watch_stages import stages
from memedynamics.watch_state import state

PROJECT = Path(__file__).parents[2]


def main() -> None:
    """Serve the page until it is interrupted."""
    gc.enable()  # off while modules are imported
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="results/<study>")
    parser.add_argument("--port", type=int, default=0, help="any that is free where it is not given")
    given, console = parser.parse_args(), Console(highlight=False)
    try:
        server = Server(partial(state, given.folder, Path.cwd(), stages(PROJECT)), PROJECT / "workflow/web", given.port)
    except (OSError, OverflowError) as error:
        sys.exit(f"error: port {given.port}: {error}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    address = f"http://127.0.0.1:{server.server_port}/"
    console.print(f"watching {given.folder}: [bold]{address}[/bold]  (Ctrl-C ends this, not the study)", soft_wrap=True)
    if sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        console.print("no longer watching; the study goes on as it was")


if __name__ == "__main__":
    main()
