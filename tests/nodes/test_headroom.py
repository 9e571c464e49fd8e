"""DynamicVRAM's headroom through every comfy-aimdo there was: set, read and put back."""

import ctypes
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from vram_supervisor.nodes.host.headroom import (
    DEFAULT_BYTES,
    HEADROOM,
    Headroom,
    Started,
    headroom_setting,
    settings_of,
    started_with,
)
from vram_supervisor.nodes.host.settings import SettingsScope
from vram_supervisor.supervisor.units import GiB


@dataclass
class Library:
    """comfy-aimdo's library as far as it shows."""

    headroom_bytes: int = DEFAULT_BYTES
    pressure: bool = True
    calls: list = field(default_factory=list)


def with_setter(lib):
    """0.5.3 and later."""

    def put(headroom):
        lib.headroom_bytes = headroom

    return SimpleNamespace(
        lib=lib,
        init=None,
        set_simple_vram_headroom=put,
        get_simple_vram_headroom=lambda: lib.headroom_bytes,
    )


def with_pressure(lib):
    """0.4.13: a second call turns NVML's pressure off unless told otherwise."""

    def init(implementation=None, simple_vram_headroom=None, nvml_pressure=False):
        if simple_vram_headroom is not None:
            lib.headroom_bytes = simple_vram_headroom
        lib.pressure = nvml_pressure
        lib.calls.append(implementation)
        return True

    return SimpleNamespace(lib=lib, init=init)


def with_init(lib):
    """0.4.10."""

    def init(implementation=None, simple_vram_headroom=None):
        if simple_vram_headroom is not None:
            lib.headroom_bytes = simple_vram_headroom
        lib.calls.append(implementation)
        return True

    return SimpleNamespace(lib=lib, init=init)


@pytest.mark.parametrize("made", [with_setter, with_pressure, with_init])
@pytest.mark.parametrize(
    "started", [Started(), Started(3 * GiB), Started(None, nvml_pressure=False)]
)
def test_it_is_held_and_put_back_and_nothing_else_changes(made, started):
    lib = Library(started.reserve_bytes or DEFAULT_BYTES, started.nvml_pressure)
    before = (lib.headroom_bytes, lib.pressure)
    scope = SettingsScope(settings_of(headroom_setting(made(lib), started)))
    assert scope.hold("job", {HEADROOM: 5 * GiB}) == {}
    assert (lib.headroom_bytes, lib.pressure) == (5 * GiB, before[1])
    assert scope.revise("job", {HEADROOM: 7 * GiB})
    assert (lib.headroom_bytes, lib.pressure) == (7 * GiB, before[1])
    scope.release("job")
    assert (lib.headroom_bytes, lib.pressure) == before
    assert set(lib.calls) <= {None}


def without_headroom(lib):
    """0.4.9."""
    return SimpleNamespace(lib=lib, init=lambda implementation=None: True)


def with_more(lib):
    """A version nobody knows, whose further argument a second call might change."""

    def init(simple_vram_headroom=None, pool_bytes=0):
        return bool(simple_vram_headroom or pool_bytes)

    return SimpleNamespace(lib=lib, init=init)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (without_headroom, "before 0.4.10"),
        (with_more, "pool_bytes"),
        (lambda lib: SimpleNamespace(lib=lib), "at no time"),
        (lambda lib: with_pressure(None), "not loaded"),
        (lambda lib: SimpleNamespace(), "not loaded"),
    ],
)
def test_where_it_cannot_be_set_the_reason_is_told(made, why):
    found = headroom_setting(made(Library()), Started())
    assert isinstance(found, str)
    assert why in found
    assert settings_of(found) == settings_of(None) == {}


def test_the_librarys_own_figure_is_read_where_it_shows():
    process = ctypes.CDLL(None)  # no such figure in it, as in Windows' libraries
    control = with_init(Library())
    control.lib = process
    assert headroom_setting(control, Started()).read() == DEFAULT_BYTES
    assert headroom_setting(control, Started(9 * GiB)).read() == 9 * GiB
    figure = SimpleNamespace(value=4 * GiB)
    assert Headroom(lambda: figure.value, lambda _: None, 0).read() == 4 * GiB


def test_of_two_the_larger_holds():
    lib = Library()
    scope = SettingsScope(settings_of(headroom_setting(with_setter(lib), Started())))
    scope.hold("a", {HEADROOM: 2 * GiB})
    scope.hold("b", {HEADROOM: GiB})
    assert lib.headroom_bytes == 2 * GiB


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (SimpleNamespace(reserve_vram=None, disable_nvml_pressure=False), Started()),
        (SimpleNamespace(reserve_vram=1.5, disable_nvml_pressure=True),
         Started(int(1.5 * GiB), nvml_pressure=False)),
        (SimpleNamespace(reserve_vram=0.0), Started(0)),
    ],
)  # fmt: skip
def test_what_the_host_was_started_with(args, expected):
    assert started_with(args) == expected
