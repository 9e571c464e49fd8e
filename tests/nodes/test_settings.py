"""Settings are combined while several hold them and put back exactly when the last lets go."""

from dataclasses import dataclass, field

import pytest

from vram_supervisor.nodes.host.settings import SettingsScope


@dataclass
class Knob:
    """A setting over a plain value that remembers every write."""

    name: str
    value: object = 0
    pick: object = max
    writes: list = field(default_factory=list)
    broken: bool = False

    def read(self):
        return self.value

    def write(self, value):
        if self.broken:
            raise RuntimeError("refused by the test")
        self.writes.append(value)
        self.value = value

    def combine(self, wishes):
        return self.pick(wishes)


def newest(wishes):
    return wishes[-1]


@pytest.fixture
def knobs():
    return {
        "reserve": Knob("reserve", 400),
        "flag": Knob("flag", False, newest),
    }


@pytest.fixture
def scope(knobs):
    return SettingsScope(knobs)


def test_the_value_from_before_comes_back(scope, knobs):
    scope.hold("node", {"reserve": 1000, "flag": True})
    assert (knobs["reserve"].value, knobs["flag"].value) == (1000, True)
    scope.release("node")
    assert (knobs["reserve"].value, knobs["flag"].value) == (400, False)


def test_two_nodes_with_different_values_share_the_combined_one(scope, knobs):
    scope.hold("a", {"reserve": 2000})
    scope.hold("b", {"reserve": 1000})
    assert knobs["reserve"].value == 2000
    scope.release("a")
    assert knobs["reserve"].value == 1000
    scope.release("b")
    assert knobs["reserve"].value == 400


def test_a_nested_hold_wins_and_the_outer_one_returns(scope, knobs):
    scope.hold("job", {"flag": True})
    scope.hold("run", {"flag": False})
    assert knobs["flag"].value is False
    scope.release("run")
    assert knobs["flag"].value is True


def test_the_end_of_the_job_puts_everything_back_whoever_held_it(scope, knobs):
    scope.hold("job", {"reserve": 2000, "flag": True})
    scope.hold("run that never cleaned up", {"flag": False, "reserve": 3000})
    scope.release_all()
    assert (knobs["reserve"].value, knobs["flag"].value) == (400, False)
    assert scope.held() == {}


def test_holding_again_replaces_the_earlier_wishes(scope, knobs):
    scope.hold("a", {"reserve": 2000, "flag": True})
    scope.hold("a", {"reserve": 1000})
    assert (knobs["reserve"].value, knobs["flag"].value) == (1000, False)


def test_a_value_somebody_else_set_meanwhile_is_theirs(scope, knobs):
    scope.hold("a", {"reserve": 2000})
    knobs["reserve"].value = 5000
    scope.release("a")
    assert knobs["reserve"].value == 5000


def test_a_value_already_right_is_not_written(scope, knobs):
    scope.hold("a", {"reserve": 400})
    scope.release("a")
    assert knobs["reserve"].writes == []


def test_a_setting_that_cannot_be_set_is_told_and_the_others_are_set(scope, knobs):
    knobs["flag"].broken = True
    failures = scope.hold("a", {"flag": True, "reserve": 1000})
    assert failures == {"flag": "refused by the test"}
    assert knobs["reserve"].value == 1000
    scope.release("a")
    assert (knobs["reserve"].value, knobs["flag"].value) == (400, False)


def test_letting_go_of_nothing_is_fine(scope, knobs):
    scope.release("nobody")
    scope.release_all()
    assert knobs["reserve"].writes == []


@dataclass
class HalfKnob(Knob):
    """Two flags as one value; writing the second one fails when broken."""

    def write(self, value):
        self.value = (value[0], self.value[1])
        if self.broken and value == (True, True):
            raise RuntimeError("refused half-way by the test")
        self.value = value


def test_a_value_that_was_half_written_is_written_back():
    knob = HalfKnob("flags", (False, False), newest, broken=True)
    scope = SettingsScope({"flags": knob})
    assert scope.hold("node", {"flags": (True, True)}) == {"flags": "refused half-way by the test"}
    assert knob.value == (False, False)
    scope.release_all()
    assert knob.value == (False, False)


def test_what_somebody_else_set_meanwhile_is_what_comes_back(scope, knobs):
    scope.hold("a", {"reserve": 1000})
    knobs["reserve"].value = 700
    scope.hold("b", {"reserve": 2000})
    assert knobs["reserve"].value == 2000
    scope.release_all()
    assert knobs["reserve"].value == 700


def test_a_restore_that_failed_is_tried_again(scope, knobs):
    scope.hold("node", {"reserve": 1000})
    knobs["reserve"].broken = True
    scope.release_all()
    assert knobs["reserve"].value == 1000
    knobs["reserve"].broken = False
    scope.release_all()
    assert knobs["reserve"].value == 400


def test_what_an_owner_holds_is_revised_and_nothing_else(scope, knobs):
    scope.hold("node", {"reserve": 1000})
    assert scope.revise("node", {"reserve": 3000, "flag": True})
    assert (knobs["reserve"].value, knobs["flag"].value) == (3000, False)
    scope.release("node")
    assert knobs["reserve"].value == 400


def test_what_nobody_holds_is_not_revised(scope, knobs):
    assert not scope.revise("node", {"reserve": 3000})
    scope.hold("node", {"flag": True})
    assert not scope.revise("node", {"reserve": 3000})
    scope.release_all()
    assert not scope.revise("node", {"flag": True})
    assert knobs["reserve"].writes == []
    assert knobs["flag"].value is False


def test_the_value_without_any_wish_is_known_while_one_holds(scope):
    assert (scope.original("reserve"), scope.original("nothing")) == (400, None)
    scope.hold("node", {"reserve": 1000})
    assert scope.original("reserve") == 400
