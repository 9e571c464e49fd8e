"""ComfyUI's real frontend over this pack's real routes, without ComfyUI.

Serves the files of a frontend package, as much of ComfyUI's API as it asks for when it starts,
the pack's ``web/`` folder, and the pack's own routes: the probe with its stream, the history, the
settings, and the cleanup over a scripted card.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web
from support.card_world import Card, Patcher
from support.frontend_nodes import object_info
from support.page_server import ThreadedServer

from vram_supervisor.nodes.host.cleanup_route import Cleaner, JobGate, add_cleanup_route
from vram_supervisor.nodes.host.evicting import DeviceUse
from vram_supervisor.nodes.host.memory import HostMemory
from vram_supervisor.nodes.host.preferences import PreferenceBook
from vram_supervisor.nodes.host.settings_route import add_settings_route
from vram_supervisor.supervisor.embedded.server import api_twins
from vram_supervisor.supervisor.http.routes import add_routes
from vram_supervisor.supervisor.types import JobPosition
from vram_supervisor.supervisor.units import GiB, MiB

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

    from vram_supervisor.supervisor.service import Supervisor

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "web"
PACK = "/extensions/vram_supervisor"
SOCKETS = web.AppKey("sockets", set)
EMPTY: dict[str, Any] = {
    "users": {"storage": "server", "migrated": True},
    "embeddings": [],
    "history": {},
    "jobs": {"jobs": [], "pagination": {"offset": 0, "limit": 0, "total": 0, "has_more": False}},
    "queue": {"queue_running": [], "queue_pending": []},
    "prompt": {"exec_info": {"queue_remaining": 0}},
    "features": {},
    "workflow_templates": {},
    "global_subgraphs": {},
    "experiment/models": [],
    "node_replacements": {},
    "userdata": [],
    "v2/userdata": [],
    "system_stats": {
        "system": {
            "os": "posix", "comfyui_version": "0.33.0", "python_version": "3", "argv": [],
            "pytorch_version": "2", "embedded_python": False, "ram_total": 0, "ram_free": 0,
            "required_frontend_version": "0", "installed_templates_version": "0",
            "required_templates_version": "0",
        },
        "devices": [],
    },
}  # fmt: skip
"""What ComfyUI answers where there is nothing."""


class Queue:
    """Nothing runs and nothing waits, unless a test says so."""

    def __init__(self) -> None:
        self.running: list[object] = []

    def get_current_queue_volatile(self) -> tuple[list[object], list[object]]:
        return self.running, []

    def get_history(self, *_which: object, **_how: object) -> dict[str, object]:
        return {}


class FrontendServer(ThreadedServer):
    """Stopped, it breaks every connection off, as when ComfyUI is killed."""

    def __init__(self, version: str, static: Path, supervisor: Supervisor, folder: Path) -> None:
        super().__init__(self._app, shutdown_s=0)
        self.version, self.static, self.supervisor = version, static, supervisor
        self.book = PreferenceBook(folder / "settings.json", {})
        self.settings: dict[str, Any] = {"Comfy.TutorialCompleted": True}
        self.userdata: dict[str, str] = {}
        self.queue = Queue()
        self.card = Card(24 * GiB, Patcher("Flux", 6 * GiB), tensors=2 * GiB)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _app(self) -> web.Application:
        app = web.Application()
        routes = web.RouteTableDef()
        streams = add_routes(routes, self.supervisor, versions={"comfyui": "0.33.0"})
        add_settings_route(routes, self.book)
        add_cleanup_route(routes, self._cleaner())
        self._add_host(routes)
        app.add_routes([*routes, *api_twins(routes)])
        app.router.add_static(PACK, WEB)
        app.router.add_get("/", self._index)
        app.router.add_static("/", self.static)

        async def break_off(_app: web.Application) -> None:
            streams.close()
            for socket in list(sockets):
                await socket.close()

        sockets: set[web.WebSocketResponse] = set()
        app[SOCKETS] = sockets
        app.on_shutdown.append(break_off)
        return app

    def _cleaner(self) -> Cleaner:
        card = self.card

        class OnDevice(HostMemory):
            def device_use(self, device: Any) -> DeviceUse:
                held = sum(each.loaded for each in card.patchers)
                return DeviceUse(held, held + 64 * MiB, card.free(), card.size)

        memory = OnDevice(card.management, None, card.memory.recovery)
        nowhere = JobPosition()
        return Cleaner(memory, self.queue, JobGate().closed, lambda: nowhere)

    def _add_host(self, routes: web.RouteTableDef) -> None:
        """ComfyUI's own, as far as the frontend needs it to start."""
        for path, answer in EMPTY.items():
            routes.get(f"/{path}")(_answering(answer))
        routes.get("/object_info")(_answering(object_info()))
        routes.get("/extensions")(_answering([f"{PACK}/{path}" for path in _modules()]))
        routes.get("/i18n")(_answering(_locales()))
        routes.get("/settings")(self._settings)
        routes.post("/settings")(self._change_settings)
        routes.post("/settings/{id}")(self._change_setting)
        routes.get("/userdata/{file}")(self._read_userdata)
        routes.post("/userdata/{file}")(self._write_userdata)
        routes.get("/ws")(_websocket)

    async def _index(self, _request: web.Request) -> web.StreamResponse:
        return web.FileResponse(self.static / "index.html")

    async def _settings(self, _request: web.Request) -> web.Response:
        return web.json_response(self.settings)

    async def _change_settings(self, request: web.Request) -> web.Response:
        self.settings |= await request.json()
        return web.Response()

    async def _change_setting(self, request: web.Request) -> web.Response:
        self.settings[request.match_info["id"]] = await request.json()
        return web.Response()

    async def _read_userdata(self, request: web.Request) -> web.Response:
        found = self.userdata.get(request.match_info["file"])
        return web.Response(status=404) if found is None else web.Response(text=found)

    async def _write_userdata(self, request: web.Request) -> web.Response:
        name = request.match_info["file"]
        self.userdata[name] = await request.text()
        return web.json_response({"path": name, "size": 0, "modified": 0, "created": 0})


def _answering(answer: object) -> Handler:
    text = json.dumps(answer)

    async def respond(_request: web.Request) -> web.Response:
        return web.Response(text=text, content_type="application/json")

    return respond


def _modules() -> list[str]:
    """Every script of the pack, as ComfyUI lists them."""
    return [path.relative_to(WEB).as_posix() for path in sorted(WEB.rglob("*.js"))]


def _locales() -> dict[str, Any]:
    """As ComfyUI merges a pack's files."""
    found: dict[str, Any] = {}
    for folder in sorted((ROOT / "locales").iterdir()):
        texts: dict[str, Any] = json.loads((folder / "main.json").read_text("utf-8"))
        for name in ("nodeDefs", "commands", "settings"):
            texts[name] = json.loads((folder / f"{name}.json").read_text("utf-8"))
        found[folder.name] = texts
    return found


async def _websocket(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    request.app[SOCKETS].add(socket)
    status = {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "test"}
    await socket.send_json({"type": "status", "data": status})
    async for message in socket:
        if message.type == WSMsgType.ERROR:
            break
    request.app[SOCKETS].discard(socket)
    return socket
