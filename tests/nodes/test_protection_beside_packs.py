"""The switch on core's decode nodes beside packs that wrap or replace them too."""

import functools

from support.decode_nodes import Host, Vae, old_nodes, picture


def counting(function, counts):
    """Another pack's wrapper: does its own work around whatever it found."""

    @functools.wraps(function)
    def around(*args, **inputs):
        counts.append("before")
        (images,) = function(*args, **inputs)
        return (f"{images}, framed",)

    return around


def test_a_wrapper_from_before_us_still_does_its_work():
    host, counts = Host(), []
    theirs = counting(host.nodes["VAEDecode"].decode, counts)
    host.nodes["VAEDecode"].decode = theirs
    host.protection.switch_on()
    assert host.run("VAEDecode", vae=Vae(), samples=picture()) == "safe, framed"
    host.protection.switch_off()
    assert vars(host.nodes["VAEDecode"])["decode"] is theirs
    assert counts == ["before"]


def test_a_wrapper_from_after_us_stays_and_ours_only_passes_on(caplog):
    host, counts = Host(), []
    tiled = vars(host.nodes["VAEDecodeTiled"])["decode"]
    host.protection.switch_on()
    theirs = counting(host.nodes["VAEDecode"].decode, counts)
    host.nodes["VAEDecode"].decode = theirs
    assert host.run("VAEDecode", vae=Vae(), samples=picture()) == "safe, framed"

    host.protection.switch_off()
    assert vars(host.nodes["VAEDecode"])["decode"] is theirs
    assert vars(host.nodes["VAEDecodeTiled"])["decode"] is tiled
    assert host.run("VAEDecode", vae=Vae(), samples=picture()) == "core: whole 4-D, framed"
    host.protection.switch_off()
    assert caplog.text.count("Another pack has replaced") == 1


def test_buried_once_it_is_placed_anew_and_decodes_once():
    host, counts = Host(), []
    host.protection.switch_on()
    host.nodes["VAEDecode"].decode = counting(host.nodes["VAEDecode"].decode, counts)
    host.protection.switch_off()
    host.protection.switch_on()
    assert host.run("VAEDecode", vae=Vae(), samples=picture()) == "safe, framed"
    assert len(host.asked) == 1


def test_another_packs_class_under_cores_id_is_left_alone(caplog):
    nodes = old_nodes()
    nodes["VAEDecode"].RELATIVE_PYTHON_MODULE = "custom_nodes.other"
    host = Host(nodes)
    before = vars(nodes["VAEDecode"])["decode"]
    assert host.protection.switch_on() == ("VAEDecodeTiled",)
    assert vars(nodes["VAEDecode"])["decode"] is before
    assert "VAEDecode is not core's own node" in caplog.text


def test_a_host_without_these_nodes_is_no_error(caplog):
    host = Host({"Other": object})
    assert host.protection.switch_on() == ()
    host.protection.switch_off()
    assert caplog.text.count("is not core's own node") == 2
