"""Event sources are declared once: a new one is its file and its place in the list, and every guarantee is kept."""

import logging
from collections import deque

import pytest
from conftest_trigger import Immediate, deliver

from coda.errors import ConfigError, TransientError
from coda.trigger import event_sources
from coda.trigger.address_file import AddressFile
from coda.trigger.event_source import EventSource
from coda.trigger.ledger import Ledger
from coda.trigger.service import Pace, Trigger

FAST = Pace(backoff_s=0.0, tick_s=0.0, recheck_s=0.0)


class Bus(EventSource):
    """A source of somebody else, as it would be written: messages that are acknowledged one by one."""

    name = "bus"
    says = "messages of a bus: bus=TOPIC"

    def __init__(self, topic):
        self.topic, self.messages, self.acknowledged, self.heard = topic, deque(), [], []

    @classmethod
    def make(cls, context, where):
        return cls(where)

    @property
    def description(self):
        return f"the topic {self.topic}"

    def drain(self, take, *, wait_s=0, everything=False):
        for _ in range(len(self.messages)):
            if take(self.messages[0]):
                self.acknowledged.append(self.messages.popleft())
            else:
                self.messages.rotate(-1)
        return len(self.acknowledged)

    def settle(self, arrival, *, known):
        self.heard.append((arrival.version.batch, known))


@pytest.fixture
def make(platform, demo_params, monkeypatch):
    """Return a function that makes a trigger, which knows the bus by the one line that declares it."""
    monkeypatch.setitem(event_sources.EVENT_SOURCES, "bus", Bus)
    return lambda *events: Trigger(
        platform.settings, Immediate(platform.store), params=demo_params, pace=FAST, events=events
    )


def key(batch):
    return f"lab_b/{batch}/manifest.json"


def batches(platform):
    return sorted(state.batch for state in Ledger(platform.store).newest())


def test_a_new_source_is_chosen_by_name_asked_and_acknowledged(platform, make):
    trigger = make("bus=images")
    (bus,) = trigger.arrivals.sources
    assert bus.description == "the topic images"
    deliver(platform.landing)
    bus.messages += [key("b1"), "lab_b/gone/manifest.json"]
    assert [item.state for item in trigger.run_once()] == ["released"]
    assert bus.acknowledged == [key("b1"), "lab_b/gone/manifest.json"]
    assert bus.heard == [("b1", False)]
    trigger.take(key("b1"))
    assert bus.heard[1:] == [("b1", True)]


def test_what_is_wrong_with_one_key_is_told_and_leaves_the_others_and_itself(platform, make, monkeypatch, caplog):
    trigger = make("bus=images")
    (bus,) = trigger.arrivals.sources
    for batch in ("b1", "b2"):
        deliver(platform.landing, "lab_b", batch)
    bus.messages += [key("b1"), key("b2")]
    take = trigger.arrivals.take

    def broken(key_):
        if key_ == key("b1"):
            raise RuntimeError("a defect")
        return take(key_)

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(trigger.arrivals, "take", broken)
        trigger.look()
    assert (bus.acknowledged, list(bus.messages)) == ([key("b2")], [key("b1")])
    assert "b1/manifest.json could not be taken" in caplog.text
    assert trigger.metrics.registry.get_sample_value("coda_trigger_defects_total", {"outcome": "arrival"}) == 1
    trigger.look()
    assert batches(platform) == ["b1", "b2"]


@pytest.mark.parametrize("error", [TransientError("The store is away."), ConfigError("No rights.")])
def test_an_error_that_is_about_all_passes_and_acknowledges_nothing(platform, make, monkeypatch, error):
    trigger = make("bus=images")
    (bus,) = trigger.arrivals.sources
    deliver(platform.landing)
    bus.messages.append(key("b1"))

    def away(key_):
        raise error

    monkeypatch.setattr(trigger.arrivals, "take", away)
    with pytest.raises(type(error)):
        trigger.look()
    assert list(bus.messages) == [key("b1")]


def test_a_source_that_is_away_keeps_no_other_from_being_asked(platform, make, monkeypatch):
    trigger = make("poll", "bus=images")
    poll, bus = trigger.arrivals.sources
    deliver(platform.landing)

    def away(*arguments, **more):
        raise TransientError("The listing is away.")

    monkeypatch.setattr(poll, "drain", away)
    bus.messages.append(key("b1"))
    with pytest.raises(TransientError, match="listing"):
        trigger.look()
    assert batches(platform) == ["b1"]


def test_a_source_that_nobody_declared_is_named_with_those_there_are(make):
    with pytest.raises(ConfigError) as caught:
        make("kafka=broker")
    for name in ("'kafka'", "queue (", "poll (", "webhook (", "bus ("):
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ("queue", "queue is not named"),
        ("poll=often", "How often"),
        ("webhook=8081", "listen"),
        ("address_file", "addresses is not named"),
    ],
)
def test_a_place_that_cannot_be_is_said(make, event, said):
    with pytest.raises(ConfigError, match=said):
        make(event)


def test_one_that_is_told_starts_and_stops_with_the_service(platform, make, monkeypatch):
    done = []
    monkeypatch.setattr(Bus, "start", lambda self: done.append("start"))
    monkeypatch.setattr(Bus, "stop", lambda self: done.append("stop"))
    from coda.trigger.server import TriggerService

    trigger = make("bus=images")
    service = TriggerService(trigger)
    service.stop()
    service.serve(grace_s=0)
    assert done == ["start", "stop"]


@pytest.fixture
def addresses(platform, make, tmp_path):
    path = tmp_path / "delivered.txt"
    return path, make(f"address_file={path}")


def test_lines_that_are_added_to_a_file_start_their_batches(platform, addresses):
    path, trigger = addresses
    trigger.look()  # nobody delivered anything yet
    for batch in ("b1", "b2"):
        deliver(platform.landing, "lab_b", batch)
    path.write_text(f"{platform.landing.url(key('b1'))}\n{platform.landing.url(key('b2'))}")
    trigger.look()
    assert batches(platform) == ["b1"]  # the second line is not finished
    with path.open("a") as file:
        file.write("\r\n\ns3://elsewhere/in/lab_b/b3/manifest.json\nnonsense\n")
    trigger.look()
    assert batches(platform) == ["b1", "b2"]
    deliver(platform.landing, "lab_b", "b3")
    path.write_text(f"{platform.landing.url(key('b3'))}\n")  # begun anew
    trigger.look()
    assert batches(platform) == ["b1", "b2", "b3"]


def test_lines_that_could_not_be_taken_wait(platform, addresses, monkeypatch):
    path, trigger = addresses
    deliver(platform.landing)
    path.write_text(f"{platform.landing.url(key('b1'))}\n")

    def away(key_):
        raise TransientError("The store is away.")

    with monkeypatch.context() as patch:
        patch.setattr(trigger.arrivals, "take", away)
        with pytest.raises(TransientError):
            trigger.look()
    trigger.look()
    assert batches(platform) == ["b1"]


def test_a_file_that_cannot_be_read_is_away(platform, tmp_path):
    with pytest.raises(TransientError, match="cannot be read"):
        AddressFile(tmp_path, platform.landing).drain(lambda key: True)
