"""Command line of the embedded host: ``vram-supervisor`` or ``python -m ...embedded``."""

from __future__ import annotations

import argparse
import json
import logging
import os
import socket
import sys
import webbrowser
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import PortTakenError, SizeUnreadableError
from ..units import parse_bytes
from .plan_command import add_plan_command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..service import Supervisor
    from .decode_job import DecodeJobs

HOST: Final = "127.0.0.1"
PORT: Final = 8288
LAST_PORT: Final = 65535
CANCEL_PATIENCE_S: Final = 10.0

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the page, run the smoke or print a plan; the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    if options.run is not None:
        return options.run(options)
    return _smoke(options) if options.smoke else _serve(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vram-supervisor",
        description="Live VRAM monitor with a built-in decode job, on a page of its own.",
    )
    parser.add_argument("--port", type=_port, default=PORT, help=f"default {PORT}, 0: any free one")
    parser.add_argument("--no-browser", action="store_true", help="do not open the page")
    parser.add_argument("--history", type=Path, help="file for peaks of past jobs")
    parser.add_argument("--device", help="decode on this torch device, such as cpu or cuda:1")
    parser.add_argument("--verbose", action="store_true", help="log more")
    smoke = parser.add_argument_group(
        "smoke", "one decode without a browser; prints one JSON object, exits 0 or 1"
    )
    smoke.add_argument("--smoke", action="store_true", help="run it")
    smoke.add_argument("--budget", type=_size, help="such as 256MiB; default: 40 %% of whole")
    smoke.add_argument("--size", type=_dimensions, help="WIDTHxHEIGHTxFRAMES")
    parser.set_defaults(run=None)
    add_plan_command(parser.add_subparsers(title="commands", metavar=""))
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= LAST_PORT:
        raise argparse.ArgumentTypeError(f"{port} is not a port; give 0 to {LAST_PORT}")
    return port


def _size(text: str) -> int:
    try:
        return parse_bytes(text)
    except SizeUnreadableError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _dimensions(text: str) -> tuple[int, int, int]:
    parts = text.lower().split("x")
    if len(parts) != len(("width", "height", "frames")) or not all(p.isdecimal() for p in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHTxFRAMES, as 320x192x17")
    width, height, frames = (int(part) for part in parts)
    if min(width, height, frames) < 1:
        raise argparse.ArgumentTypeError("width, height and frames start at 1")
    return width, height, frames


def _smoke(options: argparse.Namespace) -> int:
    # Imported late: --help should not wait for torch.
    from ..service import build_supervisor  # noqa: PLC0415
    from .decode_job import DecodeJobs  # noqa: PLC0415
    from .smoke import run_smoke, smoke_request  # noqa: PLC0415

    supervisor = build_supervisor(options.history)
    supervisor.start()
    try:
        jobs = DecodeJobs(supervisor, device=options.device)
        request = smoke_request(jobs.device, size=options.size, budget_bytes=options.budget)
        result = run_smoke(supervisor, jobs, request)
    finally:
        supervisor.stop()
    for problem in result.problems:
        _log.error("smoke: %s", problem)
    sys.stdout.write(json.dumps(asdict(result)) + "\n")
    return 0 if result.ok else 1


def _serve(options: argparse.Namespace) -> int:
    from ..service import build_supervisor  # noqa: PLC0415
    from .decode_job import DecodeJobs  # noqa: PLC0415

    try:
        listening = _listen(options.port)
    except PortTakenError as error:
        _log.error("%s", error)
        return 1
    supervisor = build_supervisor(options.history or default_history_path(os.environ))
    with listening:
        supervisor.start()
        try:
            _serve_on(listening, supervisor, DecodeJobs(supervisor, device=options.device), options)
        finally:
            supervisor.stop()
    return 0


def _listen(port: int) -> socket.socket:
    """A listening socket on the loopback address.

    Raises:
        PortTakenError: the system does not give the port.
    """
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise PortTakenError(HOST, port, error.strerror or str(error)) from error


def _serve_on(
    listening: socket.socket,
    supervisor: Supervisor,
    jobs: DecodeJobs,
    options: argparse.Namespace,
) -> None:
    """Answer until the process is told to stop (SIGINT, SIGTERM, Ctrl+Break)."""
    from aiohttp import web  # noqa: PLC0415

    from .server import build_app  # noqa: PLC0415

    url = f"http://{HOST}:{listening.getsockname()[1]}/"
    _log.info("decoding on %s; the page is at %s", jobs.device, url)
    if not options.no_browser and can_show_browser(sys.platform, os.environ):
        webbrowser.open(url)
    web.run_app(build_app(supervisor, jobs), sock=listening, print=None, access_log=None)
    jobs.cancel()
    if not jobs.wait(CANCEL_PATIENCE_S):
        _log.warning("the running decode did not stop in time and is not recorded")


def can_show_browser(platform: str, environment: Mapping[str, str]) -> bool:
    """Whether there is a desktop to open a page on (a text browser would take the terminal)."""
    if platform in {"win32", "darwin"}:
        return True
    return bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))


def default_history_path(environment: Mapping[str, str]) -> Path:
    """Where peaks of past jobs are kept: the user's data folder."""
    folder = environment.get("LOCALAPPDATA") or environment.get("XDG_DATA_HOME")
    base = Path(folder) if folder else Path.home() / ".local" / "share"
    return base / "vram-supervisor" / "history.sqlite"


if __name__ == "__main__":
    sys.exit(main())
