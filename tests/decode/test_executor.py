import pytest

torch = pytest.importorskip("torch")

from vram_supervisor.supervisor.decode.executor import Watch, decode  # noqa: E402
from vram_supervisor.supervisor.decode.memory import is_out_of_memory  # noqa: E402
from vram_supervisor.supervisor.errors import DecodeFailedError  # noqa: E402
from vram_supervisor.supervisor.types import Plan  # noqa: E402

WHOLE = Plan("whole", 1, "", 0, fits=True)
ONE_TILE = Plan("streamed", 1, "", 0, fits=True)
TILED = Plan("streamed", 15, "", 0, fits=True, tile_size=10, overlap=4)


def reference(decoder, latent):
    return decoder.up(decoder.mid(latent), None, first=True)


class Recorder:
    """Watches a decode: which tiles were committed, what was freed, what was still held."""

    def __init__(self):
        self.committed = []
        self.replaced = []
        self.freed = 0
        self.watch = Watch(progress=self.progress, free=self.free)

    def progress(self, progress):
        if progress.committed:
            self.committed.append(progress.tile.owned)
        if progress.replaced_by:
            self.replaced.append(progress.tile.owned)

    def free(self):
        self.freed += 1


def owned_twice_or_never(rects, height, width):
    counts = torch.zeros(height, width, dtype=torch.int)
    for rect in rects:
        counts[rect.top : rect.bottom, rect.left : rect.right] += 1
    return bool((counts != 1).any())


def failing(decoder, at_call, times=1, error=torch.cuda.OutOfMemoryError):
    """Make ``up`` run out of memory at its ``at_call``-th call, ``times`` times in a row."""
    real, seen = decoder.up, [0]

    def up(features, cache, *, first):
        seen[0] += 1
        if at_call <= seen[0] < at_call + times:
            raise error("CUDA out of memory. Tried to allocate 1.00 GiB")
        return real(features, cache, first=first)

    decoder.up = up


@pytest.mark.parametrize("plan", [WHOLE, ONE_TILE, TILED], ids=lambda plan: str(plan.tiles))
def test_every_way_of_cutting_gives_the_whole_decode(small_decoder, latent, plan):
    outcome = decode(small_decoder, latent, plan)
    assert torch.equal(outcome.frames, reference(small_decoder, latent))
    assert outcome.frames.shape == (1, 3, 7, 22, 34)
    assert outcome.tried == []


def test_each_position_is_committed_by_one_tile(small_decoder, latent):
    recorder = Recorder()
    decode(small_decoder, latent, TILED, recorder.watch)
    assert len(recorder.committed) == 15
    assert not owned_twice_or_never(recorder.committed, 11, 17)


def test_the_low_resolution_part_runs_once_on_everything(small_decoder, latent):
    decode(small_decoder, latent, TILED)
    assert small_decoder.calls.count("mid") == 1


# 15 tiles of 4 chunks: running out at any of the 60 calls.
@pytest.mark.parametrize("at_call", range(1, 61))
def test_running_out_of_memory_anywhere_changes_nothing(small_decoder, latent, at_call):
    expected = reference(small_decoder, latent)
    failing(small_decoder, at_call)
    recorder = Recorder()
    outcome = decode(small_decoder, latent, TILED, recorder.watch)
    assert torch.equal(outcome.frames, expected)
    assert len(outcome.tried) == 1
    assert recorder.freed == 1
    assert len(recorder.replaced) == 1
    assert not owned_twice_or_never(recorder.committed, 11, 17)


def test_finished_tiles_are_not_decoded_again(small_decoder, latent):
    failing(small_decoder, 41)  # the eleventh tile's first chunk
    recorder = Recorder()
    decode(small_decoder, latent, TILED, recorder.watch)
    assert len(recorder.committed) == len(set(recorder.committed)) == 16


def test_a_whole_decode_that_runs_out_is_streamed(small_decoder, latent):
    expected = reference(small_decoder, latent)
    failing(small_decoder, 1)
    outcome = decode(small_decoder, latent, WHOLE)
    assert torch.equal(outcome.frames, expected)
    assert outcome.tried == ["whole: out of memory"]


def test_it_splits_as_often_as_it_must(small_decoder, latent):
    expected = reference(small_decoder, latent)
    failing(small_decoder, 1, times=5)
    outcome = decode(small_decoder, latent, ONE_TILE)
    assert torch.equal(outcome.frames, expected)
    assert len(outcome.tried) == 5


def test_when_nothing_fits_every_attempt_is_named(small_decoder, latent):
    failing(small_decoder, 1, times=10_000)
    with pytest.raises(DecodeFailedError) as caught:
        decode(small_decoder, latent, ONE_TILE)
    assert caught.value.tried[0] == "tile 17x11 at (0, 0): out of memory"
    assert caught.value.tried[-1] == "tile 1x1 at (0, 0): out of memory"


def test_a_first_part_that_does_not_fit_is_tried_twice(small_decoder, latent):
    def mid(_latent):
        raise torch.cuda.OutOfMemoryError

    small_decoder.mid = mid
    with pytest.raises(DecodeFailedError) as caught:
        decode(small_decoder, latent, TILED)
    assert caught.value.tried == ("mid: out of memory",) * 2


def test_other_errors_come_through_at_once(small_decoder, latent):
    failing(small_decoder, 3, error=ValueError)
    with pytest.raises(ValueError, match="Tried"):
        decode(small_decoder, latent, TILED)


def test_an_interrupt_stops_before_the_next_chunk(small_decoder, latent):
    class InterruptedByUserError(BaseException):
        pass

    checks = []

    def check():
        checks.append(1)
        if len(checks) == 6:
            raise InterruptedByUserError

    with pytest.raises(InterruptedByUserError):
        decode(small_decoder, latent, TILED, Watch(check=check))
    assert len(small_decoder.calls) == 1 + 5  # mid and five chunks


def test_nothing_of_the_failed_tile_is_held_when_memory_is_freed(small_decoder, latent):
    real, alive, at_free = small_decoder.up, [], []

    def up(features, cache, *, first):
        import weakref

        frames = real(features, cache, first=first)
        alive.append(weakref.ref(frames))
        if len(alive) == 2:
            raise torch.cuda.OutOfMemoryError
        return frames

    small_decoder.up = up
    decode(
        small_decoder,
        latent,
        ONE_TILE,
        Watch(free=lambda: at_free.append([ref() is not None for ref in alive])),
    )
    assert at_free == [[False, False]]


@pytest.mark.parametrize(
    ("sentence", "error", "expected"),
    [
        ("torch's own class", torch.cuda.OutOfMemoryError("CUDA out of memory"), True),
        ("Python's own", MemoryError(), True),
        ("the CPU allocator's words",
         RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        ("the driver's words, late", RuntimeError("CUDA error: out of memory"), True),
        ("another runtime error", RuntimeError("shapes do not match"), False),
        ("another error with the words", ValueError("out of memory"), False),
    ],
)  # fmt: skip
def test_what_counts_as_out_of_memory(sentence, error, expected):
    assert is_out_of_memory(error) is expected
