"""A monitor whose samples the test makes, and a host with a reserve that follows them."""

from types import SimpleNamespace

from vram_supervisor.nodes.host.headroom import HEADROOM, Headroom
from vram_supervisor.nodes.host.reserves import Reserves, ask_of
from vram_supervisor.nodes.host.settings import SettingsScope
from vram_supervisor.nodes.host.torch_settings import RESERVE, Reserve
from vram_supervisor.supervisor.types import DeviceInfo, JobPosition, Reading, Sample
from vram_supervisor.supervisor.units import GiB, MiB

CARD = DeviceInfo("cuda:0", "cuda")
HOSTS = 400 * MiB
AUTO = {
    "apply_reserved_vram": True,
    "reserved_vram_mode": "adaptive",
    "reserved_vram_gb": 1.25,
}


class World:
    """A monitor whose samples the test makes, and a host with a reserve."""

    def __init__(self, *, dynamic=False, no_jobs=()):
        self.samples = {}
        self.now_s = 0.0
        self.jobs = SimpleNamespace(
            position=lambda: JobPosition("job"), recent=lambda limit: list(no_jobs)
        )
        self.management = SimpleNamespace(EXTRA_RESERVED_VRAM=HOSTS)
        self.library = SimpleNamespace(bytes=256 * MiB)
        settings = {RESERVE: Reserve(self.management)}
        if dynamic:
            settings[HEADROOM] = Headroom(lambda: self.library.bytes, self._put, 0)
        self.scope = SettingsScope(settings)
        self.reserves = Reserves(
            self, self.scope, lambda device: 2 * GiB if dynamic else None, lambda: dynamic, "Linux"
        )

    def _put(self, value):
        self.library.bytes = value

    def latest(self):
        return dict(self.samples)

    def primary_device(self):
        return CARD.key

    def second(self, external, own=512 * MiB, torch=4 * GiB, streamed=0):
        """One second of a card on which others hold so much."""
        self.now_s += 1.0
        used = external + own + torch + streamed
        reading = Reading(
            total_bytes=12 * GiB,
            used_bytes=used,
            torch_reserved_bytes=torch,
            outside_torch_bytes=own + streamed,
            external_bytes=external,
        )
        self.samples = {CARD.key: Sample(self.now_s, self.now_s, CARD, reading)}
        self.reserves.look()

    def see(self, seconds, external=GiB, **more):
        for _ in range(seconds):
            self.second(external, **more)

    def start(self, owner="job:1", **widgets):
        inputs = {**AUTO, **widgets}
        ask = ask_of(inputs, lambda profile: 1.0)
        failures = self.reserves.hold(owner, inputs, {RESERVE: ask.manual_bytes})
        assert failures == {}

    @property
    def reserve(self):
        return self.management.EXTRA_RESERVED_VRAM
