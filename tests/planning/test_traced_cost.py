import pytest

from vram_supervisor.supervisor.planning.traced_cost import SMALL_EDGE, TracedCost


class Decoder:
    """Needs the larger of two steps; counts how often it is asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, batch, frames, height, width):
        self.asked.append((batch, frames, height, width))
        area = batch * height * width
        return max(1000 + 100 * area, 60_000 + 40 * area) * (frames or 1)


def cost_of(decoder, bound=lambda base_bytes, piece: base_bytes):
    return TracedCost(decoder, bound)


def test_a_piece_that_was_dry_run_is_exact_and_not_run_again():
    decoder = Decoder()
    cost = cost_of(decoder)
    first = cost.need_bytes(1, None, 64, 48)
    assert first == cost.need_bytes(1, None, 64, 48) == Decoder()(1, None, 64, 48)
    assert len(decoder.asked) == 1
    assert cost.is_exact(1, None, 64, 48)
    assert not cost.is_exact(1, None, 48, 64)


@pytest.mark.parametrize("edge", [16, 17, 24, 33, 63, 64])
def test_between_two_dry_runs_the_need_is_never_underestimated(edge):
    decoder = Decoder()
    cost = cost_of(decoder)
    cost.need_bytes(1, 9, 64, 64)
    assert cost.need_bytes(1, 9, edge, edge) >= Decoder()(1, 9, edge, edge)


def test_many_tile_sizes_cost_two_dry_runs():
    decoder = Decoder()
    cost = cost_of(decoder)
    for edge in range(64, 15, -1):
        cost.need_bytes(1, 9, edge, edge)
    assert decoder.asked == [(1, 9, 64, 64), (1, 9, SMALL_EDGE, SMALL_EDGE)]


def test_beyond_the_largest_dry_run_nothing_is_guessed():
    decoder = Decoder()
    cost = cost_of(decoder)
    cost.need_bytes(1, None, 32, 32)
    assert cost.need_bytes(1, None, 64, 64) == Decoder()(1, None, 64, 64)
    assert len(decoder.asked) == 2


def test_each_number_of_frames_has_dry_runs_of_its_own():
    decoder = Decoder()
    cost = cost_of(decoder)
    assert cost.need_bytes(1, 5, 32, 32) == 5 * cost.need_bytes(1, 1, 32, 32)
    assert len(decoder.asked) == 2


def test_an_exact_answer_is_asked_for_where_it_matters():
    decoder = Decoder()
    cost = cost_of(decoder)
    cost.need_bytes(1, None, 64, 64)
    between = cost.need_bytes(1, None, 32, 32)
    exact = cost.exact_bytes(1, None, 32, 32)
    assert exact == Decoder()(1, None, 32, 32) <= between
    assert cost.need_bytes(1, None, 32, 32) == exact


def test_of_two_pieces_of_one_area_the_hungrier_speaks_for_both():
    needs = {(64, 64): 9000, (16, 32): 500, (32, 16): 700, (16, 16): 100}
    cost = cost_of(lambda batch, frames, height, width: needs[height, width])
    for height, width in needs:
        cost.exact_bytes(1, None, height, width)
    assert cost.need_bytes(1, None, 8, 64) == 700


def test_the_bound_is_applied_to_every_answer():
    cost = cost_of(Decoder(), bound=lambda base_bytes, piece: 2 * base_bytes)
    assert cost.need_bytes(1, None, 64, 64) == 2 * cost.base_bytes(1, None, 64, 64)
    assert cost.exact_bytes(1, None, 20, 20) == 2 * Decoder()(1, None, 20, 20)


def test_a_decoder_that_steps_is_no_longer_trusted_to_lie_on_the_line():
    def stepping(batch, frames, height, width):
        return 1_000_000 if height * width > 700 else 100_000

    cost = cost_of(stepping)
    cost.need_bytes(1, 9, 64, 64)
    assert cost.need_bytes(1, 9, 40, 40) < 1_000_000
    cost.exact_bytes(1, 9, 32, 32)
    assert cost.need_bytes(1, 9, 30, 30) == 1_000_000
