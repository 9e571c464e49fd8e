"""A session with the fake driver, and the cards its scripts describe."""

from support.clock import StillClock

from vram_supervisor.supervisor.telemetry.probes.nvml import (
    NvmlDevice,
    NvmlSession,
)
from vram_supervisor.supervisor.telemetry.probes.process_names import ProcessNames

ME = 4242
TWO_GPUS = """
gpu GPU-aaaa Alpha 1000000000
gpu GPU-bbbb Beta 2000000000
memory GPU-aaaa 100 200 300
memory GPU-bbbb 7
"""
MEMORY = "nvmlDeviceGetMemoryInfo_v2"


class World:
    def __init__(self, names=None):
        self.clock = StillClock()
        self.session = NvmlSession()
        self.names = ProcessNames((names or {}).get)

    def device(self, uuid="GPU-aaaa"):
        return NvmlDevice(self.session, uuid, self.clock, self.names, own_pid=ME)
