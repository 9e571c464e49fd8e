"""When each model is needed next, on a scripted host."""

import gc
from types import SimpleNamespace

import pytest
from support.prompt_world import Patcher, Queue, States, Types, holder, prompt

from vram_supervisor.nodes.host.next_use import MOST_PROMPTS, NextUses, Uses, cache_keeps
from vram_supervisor.nodes.host.queue import QueuedPrompt
from vram_supervisor.supervisor.jobs.eviction import NEVER

TWO = """
vae: LoadVae name=V
a: Load name=A
b: Load name=B
n: Noise seed=1
ka: Sample model=a latent=n
kb: Sample model=b latent=ka
d: Decode vae=vae samples=kb
s: Save images=d
"""


class Host:
    """Runs prompts node by node and tells what ComfyUI tells."""

    def __init__(self, keeps="last", *, tells=True):
        self.states, self.queue, self.tells = States(), Queue(), tells
        self.uses = NextUses(Types(), self.states, keeps)
        self.uses.queue = self.queue
        self.cache = {}
        """The host's own results, by node id: enough where ids and signatures go together."""

    def start(self, text, *, cached=(), unequal=()):
        """``unequal``: nodes whose inputs equal nothing: the host never tells of them."""
        self.states.running, self.states.finished = set(), set()
        self.nodes, self.unequal = prompt(text), set(unequal)
        self.uses.prompt_started(QueuedPrompt("id", self.nodes, ("s",)))
        for node_id in self.nodes:
            if self.tells and node_id not in cached and node_id not in self.unequal:
                self.uses.missed(node_id)

    def ran(self, *node_ids, **outputs):
        for node_id in node_ids:
            if self.tells and node_id not in self.unequal:
                self.uses.stored(node_id, [[outputs.get(node_id)]])
            self.states.finished.add(node_id)
        self.states.running -= set(node_ids)

    def begin(self, node_id):
        self.states.running.add(node_id)

    def end(self):
        self.uses.prompt_ended()

    def look(self):
        return self.uses.look()


@pytest.fixture
def models():
    return SimpleNamespace(a=Patcher("a"), b=Patcher("b"), v=Patcher("v"), c=Patcher("c"))


def loaders_ran(host, models, text=TWO, **how):
    host.start(text, **how)
    host.ran("vae", "a", "b", "n", vae=holder(models.v), a=models.a, b=models.b)


def order(uses, models):
    """Models by next use, the soonest first; those that are not needed are left out."""
    known = {name: uses.of(patcher) for name, patcher in vars(models).items()}
    needed = {name: use for name, use in known.items() if use is not None and use != NEVER}
    return "".join(sorted(needed, key=needed.get))


def test_models_are_needed_in_the_order_in_which_nodes_will_run(models):
    host = Host()
    loaders_ran(host, models)
    uses = host.look()
    assert order(uses, models) == "abv"
    assert uses.of(models.c) is None, "nobody saw where it came from"


def test_what_runs_is_needed_now_and_what_is_through_never(models):
    host = Host()
    loaders_ran(host, models)
    host.ran("ka")
    host.begin("kb")
    uses = host.look()
    assert uses.of(models.a) == NEVER
    assert (uses.of(models.b), order(uses, models)) == (0, "bv")


def test_a_clone_is_the_model_itself(models):
    host = Host()
    loaders_ran(host, models)
    assert host.look().of(models.a.clone()) == host.look().of(models.a)


def test_waiting_prompts_need_their_models_after_this_one(models):
    host = Host()
    loaders_ran(host, models)
    host.queue.put(3, prompt(TWO.replace("seed=1", "seed=3")))
    host.queue.put(2, prompt(TWO.replace("seed=1", "seed=2")))
    host.ran("ka", "kb")
    host.begin("d")
    uses = host.look()
    assert order(uses, models) == "vab", "the decoder runs; then the next prompt samples"
    assert uses.of(models.a) < uses.of(models.b)


def test_a_long_queue_is_looked_at_as_far_as_it_matters(models):
    """Else every eviction would take seconds behind some hundred prompts."""
    host = Host("all")
    loaders_ran(host, models)
    host.ran("ka", "kb", "d", "s")
    for number in range(MOST_PROMPTS + 5):
        last = {MOST_PROMPTS - 1: "b", MOST_PROMPTS: "a"}.get(number)
        text = TWO if last is None else f"{TWO}w: Sample model={last} seed=5\nz: Save images=w"
        host.queue.put(number, prompt(text), ("s",) if last is None else ("s", "z"))
    assert order(host.look(), models) == "b"


def test_what_a_waiting_prompt_finds_in_the_cache_needs_no_model(models):
    host = Host()
    loaders_ran(host, models)
    host.ran("ka", "kb", "d")
    same_but_for_b = TWO.replace("kb: Sample", "kb: Sample cfg=2")
    host.queue.put(2, prompt(same_but_for_b))
    assert order(host.look(), models) == "bv", "what comes before the change is kept"


def test_a_prompt_that_waits_is_known_before_anything_of_it_ran(models):
    host = Host()
    loaders_ran(host, models)
    host.ran("ka", "kb", "d", "s")
    host.end()
    host.queue.put(2, prompt(TWO.replace("seed=1", "seed=2")))
    assert order(host.look(), models) == "abv"


@pytest.mark.parametrize(
    ("sentence", "keeps", "needed"),
    [
        ("a loader that runs again makes another model: this one serves nobody", "last", ""),
        ("a cache that keeps everything still has this one", "all", "a"),
        ("without a cache every prompt loads anew", "none", ""),
    ],
)
def test_a_model_that_the_host_forgets_in_between_is_not_needed(sentence, keeps, needed, models):
    host = Host(keeps)
    host.start("a: Load name=A\nka: Sample model=a\ns: Save images=ka")
    host.ran("a", "ka", a=models.a)
    host.queue.put(2, prompt("b: Load name=B\nkb: Sample model=b\ns: Save images=kb"))
    host.queue.put(3, prompt("a: Load name=A\nka: Sample model=a seed=2\ns: Save images=ka"))
    assert order(host.look(), models) == needed, sentence


def test_a_result_that_the_host_finds_against_expectation_counts(models):
    """Where system memory is plenty, its cache holds more than one prompt."""
    host = Host("last")
    once = "a: Load name=A\nka: Sample model=a seed=1\ns: Save images=ka"
    host.start(once)
    host.ran("a", "ka", "s", a=models.a)
    host.start("b: Load name=B\nkb: Sample model=b\ns: Save images=kb")
    host.ran("b", "kb", "s", b=models.b)
    host.start(once.replace("seed=1", "seed=2"), cached=("a",))
    uses = host.look()
    assert order(uses, models) == "a"
    assert uses.of(models.b) == NEVER


def test_what_the_cache_keeps_is_asked_anew_each_time(models):
    keeps = ["last"]
    host = Host(lambda: keeps[0])
    host.start("a: Load name=A\nka: Sample model=a\ns: Save images=ka")
    host.ran("a", "ka", a=models.a)
    host.queue.put(2, prompt("b: Load name=B\nkb: Sample model=b\ns: Save images=kb"))
    host.queue.put(3, prompt("a: Load name=A\nka: Sample model=a seed=2\ns: Save images=ka"))
    assert order(host.look(), models) == ""
    keeps[0] = "all"
    assert order(host.look(), models) == "a"


def test_patching_a_model_is_no_use_of_it(models):
    text = TWO.replace("model=a", "model=la") + "la: Lora model=a strength=1"
    host = Host()
    loaders_ran(host, models, text)
    steps = [each.patchers for each in host.look().coming()]
    assert steps == [(models.a,), (models.b,), (models.v,)]


def test_a_model_whose_loader_has_still_to_run_is_expected_but_not_known(models):
    host = Host()
    host.start(TWO)
    host.ran("a", "n", a=models.a)
    steps = [(each.patchers, each.unmade) for each in host.look().coming()]
    assert steps == [((models.a,), False), ((), True), ((), True)]


def test_a_cleanup_passes_models_on_by_name(models):
    """The VAE that only goes through is not needed where the latent goes."""
    text = """
vae: LoadVae name=V
a: Load name=A
n: Noise seed=1
c: Clean vae=vae passthrough=n
ka: Sample model=a latent=c.3
d: Decode vae=c.2 samples=ka
s: Save images=d
"""
    host = Host()
    host.start(text)
    host.ran("vae", "a", "n", vae=holder(models.v), a=models.a)
    assert order(host.look(), models) == "av"


def test_guiders_pipes_and_nodes_that_do_everything(models):
    text = """
a: Load name=A
b: Load name=B
g: Guide model=a
p: Pipe model=b
ka: Sample guider=g
x: AllInOne pipe=p latent=ka
s: Save images=x.2
"""
    host = Host()
    host.start(text)
    host.ran("a", "b", "g", a=models.a, b=models.b, g=SimpleNamespace(model_patcher=models.a))
    assert order(host.look(), models) == "ab"


def test_a_control_model_within_a_conditioning_is_found(models):
    host = Host()
    host.start("e: Encode text=x\nka: Sample positive=e\ns: Save images=ka")
    control = SimpleNamespace(patcher=models.c)
    host.ran("e", e=[["tensor", {"control": control}]])
    assert order(host.look(), models) == "c"


def test_inputs_that_equal_nothing_run_again_and_hide_no_model(models):
    """Another pack's node asks to run each time: the host tells nothing of it and of what it
    feeds, but the loader above is known."""
    text = TWO.replace("model=a", "model=r") + "r: Lora model=a now=nan"
    host = Host()
    loaders_ran(host, models, text, unequal=("r", "ka", "kb", "d", "s"))
    host.ran("r")
    assert order(host.look(), models) == "abv"
    host.ran("ka", "kb", "d", "s")
    host.queue.put(2, prompt(text))
    host.end()
    assert order(host.look(), models) == "abv", "the same prompt runs as a whole again"


def test_a_node_that_looks_at_the_world_is_expected_to_run_again(models):
    host = Host()
    loaders_ran(host, models)
    host.ran("ka", "kb", "d", "s")
    host.end()
    host.start(TWO, cached=("vae", "a", "b", "ka"))  # kb was looked for in vain
    host.ran("kb", "d", "s")
    host.queue.put(2, prompt(TWO))
    assert order(host.look(), models) == "bv", "kb will run again, and what it feeds"


def test_loaders_still_hold_after_the_hosts_cache_was_emptied(models):
    """As its button does that frees models and node cache."""
    host = Host()
    loaders_ran(host, models)
    host.ran("ka", "kb", "d", "s")
    host.end()
    loaders_ran(host, models)
    host.ran("ka")
    host.queue.put(2, prompt(TWO.replace("ka: Sample", "ka: Sample cfg=2")))
    assert order(host.look(), models) == "bva", "the waiting prompt finds the loaders' results"


def test_a_node_is_through_with_its_own_models_at_its_end(models):
    host = Host()
    loaders_ran(host, models)
    host.begin("ka")
    assert order(host.look(), models) == "abv"
    assert order(host.look().later(), models) == "bv"
    assert host.look().later().of(models.a) == NEVER


def test_between_jobs_nothing_is_needed(models):
    host = Host()
    loaders_ran(host, models)
    host.end()
    assert [host.look().of(each) for each in (models.a, models.c)] == [NEVER, NEVER]


def test_a_host_that_shows_no_outputs_is_judged_by_type():
    host = Host(tells=False)
    host.start(TWO)
    host.ran("vae", "a", "b", "n")
    unet, vae, text = (Patcher(name) for name in ("unet", "vae", "text"))
    unet.model.diffusion_model = vae.model.decode = text.model.encode_token_weights = object()
    uses = host.look()
    assert uses.of(unet) < uses.of(vae)
    assert uses.of(text) is None
    host.ran("ka", "kb")
    assert host.look().of(unet) is None, "another model of its type may be needed, nobody knows"


def test_nothing_is_kept_alive(models):
    host = Host()
    loaders_ran(host, models)
    gone = id(models.a.model)
    del models.a
    gc.collect()
    assert gone not in host.look().by_base


def test_a_prompt_that_cannot_be_read_means_unknown(models, caplog):
    host = Host()
    loaders_ran(host, models)
    host.queue.get_current_queue_volatile = None
    assert host.look() == Uses()
    assert "cannot be told" in caplog.text


GIB = 1 << 30


@pytest.mark.parametrize(
    ("sentence", "arguments", "free_gib", "keeps"),
    [
        ("no cache", {"cache_none": True, "cache_lru": 0}, 500, "none"),
        ("one by age", {"cache_none": False, "cache_lru": 9}, 1, "all"),
        ("the classic one", {"cache_classic": True, "cache_lru": 0}, 500, "last"),
        ("a host before it had another", {}, 500, "last"),
        ("the usual one on a small machine", {"cache_ram": []}, 60, "last"),
        ("on one with more than it ever asks for", {"cache_ram": []}, 129, "all"),
        ("on the same when that is in use", {"cache_ram": []}, 127, "last"),
        ("with a threshold of its user", {"cache_ram": [4.0, 24.0]}, 30, "all"),
        ("which is not met", {"cache_ram": [4.0, 24.0]}, 20, "last"),
        ("with one for what is active only", {"cache_ram": [4.0]}, 60, "last"),
        ("the classic one, whatever else is said", {"cache_classic": True, "cache_ram": []}, 500,
         "last"),
        ("a host where it was a wish and is not wished", {"cache_ram": 0}, 500, "last"),
        ("and where it is", {"cache_ram": 4.0}, 5, "all"),
    ],
)  # fmt: skip
def test_what_the_command_line_makes_of_the_cache(sentence, arguments, free_gib, keeps):
    asked = cache_keeps(SimpleNamespace(**arguments), lambda: (free_gib * GIB, 1000 * GIB))
    assert asked() == keeps, sentence


def test_the_usual_cache_of_a_small_machine_keeps_nothing_old():
    """Its threshold is all the memory there is, of which some is always in use."""
    asked = cache_keeps(SimpleNamespace(cache_ram=[]), lambda: (60 * GIB, 64 * GIB))
    assert asked() == "last"


def test_this_machines_memory_is_asked_where_nobody_says():
    assert cache_keeps(SimpleNamespace(cache_ram=[0.0, 0.0]))() == "all"
    assert cache_keeps(SimpleNamespace(cache_ram=[0.0, 1e9]))() == "last"
