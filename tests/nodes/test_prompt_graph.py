"""Prompts as graphs: which nodes are alike, and in which order they run."""

import pytest
from support.prompt_world import Types, prompt

from vram_supervisor.nodes.host.prompt_graph import Graph, Link, to_run


def graph(text, outputs=("s",)):
    return Graph(prompt(text), outputs, Types())


ONE = """
a: Load name=one
k: Sample model=a seed=1
s: Save images=k
"""


@pytest.mark.parametrize(
    ("sentence", "other", "alike"),
    [
        ("other ids make no difference", ONE.replace("a:", "x:").replace("=a", "=x"), True),
        ("another value does", ONE.replace("seed=1", "seed=2"), False),
        ("another source does", ONE.replace("name=one", "name=two"), False),
        ("another output of the source does", ONE.replace("model=a", "model=a.1"), False),
        ("another class does", ONE.replace("Sample", "Decode"), False),
        ("another input name does", ONE.replace("model=a", "m=a"), False),
    ],
)
def test_which_nodes_are_alike(sentence, other, alike):
    same = graph(ONE).signature("k") == graph(other).signature("k")
    assert same is alike, sentence


def test_some_classes_are_alike_to_none():
    two = graph("one: Clean keep=1\ntwo: Clean keep=1")
    assert two.signature("one") != two.signature("two")


CHAIN = """
vae: LoadVae name=V
a: Load name=A
b: Load name=B
n: Noise seed=1
ka: Sample model=a latent=n
kb: Sample model=b latent=ka
d: Decode vae=vae samples=kb
s: Save images=d
"""


def test_sources_run_before_what_they_feed_and_only_what_is_needed_runs():
    order = graph(CHAIN + "idle: Load name=C").run_order(lambda node: False)
    assert "idle" not in order
    assert sorted(order) == ["a", "b", "d", "ka", "kb", "n", "s", "vae"]
    for before, after in [("n", "ka"), ("a", "ka"), ("ka", "kb"), ("kb", "d"), ("d", "s")]:
        assert order.index(before) < order.index(after)


def test_what_is_done_neither_runs_nor_makes_its_sources_run():
    order = graph(CHAIN).run_order({"ka", "b", "vae"}.__contains__)
    assert order == ["kb", "d", "s"]


def test_results_that_are_kept_are_told_by_signature():
    kept = {graph(CHAIN).signature(each) for each in ("ka", "b", "vae")}
    assert to_run(graph(CHAIN.replace("\nb:", "\nz:").replace("model=b", "model=z")), kept) == [
        "kb",
        "d",
        "s",
    ]


def test_output_nodes_run_as_soon_as_they_can():
    text = CHAIN + "p: Save images=n"
    order = graph(text, ("s", "p")).run_order(lambda node: False)
    assert order.index("p") == order.index("n") + 1


def test_a_broken_prompt_is_read_as_far_as_it_goes():
    nodes = prompt(ONE) | {"x": "no node", "y": {"inputs": {}}}
    nodes["k"]["inputs"]["gone"] = ["nowhere", 0]
    broken = Graph(nodes, ("s", "nowhere"), Types())
    assert broken.node_ids == ("a", "k", "s")
    assert broken.links("k") == [Link("model", "a", 0)]
    assert broken.run_order(lambda node: False) == ["a", "k", "s"]


def test_a_long_chain_and_a_cycle_are_no_problem():
    length = 3000
    links = {
        str(i): {"class_type": "Lora", "inputs": {"m": [str(i - 1), 0]}} for i in range(length)
    }
    long = Graph(links, (str(length - 1),), Types())
    assert len(long.signature(str(length - 1))) == 64
    assert len(long.run_order(lambda node: False)) == length
    ring = graph("a: Lora model=b\nb: Lora model=a\ns: Save images=a")
    assert ring.run_order(lambda node: False) == []
    assert ring.signature("a") != ring.signature("s")
