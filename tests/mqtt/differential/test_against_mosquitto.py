"""The listener beside mosquitto 2.0: every difference in what they answer is one that docs/mqtt.md explains."""

import os
import re
from pathlib import Path

import pytest

from tests.mqtt.conftest import connect, publish, text
from tests.mqtt.differential import brokers
from tests.mqtt.differential.compare import Heard, Moment
from tests.mqtt.differential.duel import Duel, UnexplainedError, explain
from tests.mqtt.differential.explanations import EXPLANATIONS
from tests.mqtt.differential.named import scripts
from tests.mqtt.differential.pen import Pen
from tests.mqtt.differential.scripts import Author, Script, Step
from tests.mqtt.differential.story import Story, matches
from tests.mqtt.differential.witness import CLOSED, Reply, Stream

SEED, SEQUENCES = 1, 500
"""The same in every test run; `make differential` plays ten thousand others each time."""
PAGE = Path(__file__).parents[3] / "docs" / "mqtt.md"


@pytest.fixture
def duel(tmp_path):
    """Both brokers; what the listener says on stderr fails the test."""
    with brokers.both(tmp_path) as ports:
        duel = Duel(*ports)
        yield duel
        duel.close()


def test_conversations_written_by_hand_differ_only_as_explained(duel):
    """Every feature and every kind of bad packet; and every explanation is met, since one that is not is dead."""
    for script in scripts():
        duel.play(script)
    assert duel.counts.never_met() == []
    assert duel.counts.compared > 1_200


def test_random_conversations_differ_only_as_explained(duel):
    """Sound packets and bent ones, up to three clients at a time."""
    seed = int(os.environ.get("TEST_SEED", SEED))
    print(f"TEST_SEED={seed}")
    for number in range(SEQUENCES):
        duel.play(Author(seed + number).script())
    print(duel.counts)
    assert duel.counts.bent > SEQUENCES / 10
    assert duel.counts.compared > 5 * SEQUENCES


def test_every_explanation_is_told_in_the_docs_with_its_clause_and_side():
    """Under the same name, and nothing else is told there."""
    rows = re.findall(r"^\| \*\*(.+?)\*\* \|.*\| ([^|]+) \| (\w+) \|$", PAGE.read_text(), re.MULTILINE)
    assert rows == [(each.name, each.clause, each.side.value) for each in EXPLANATIONS]
    assert len({name for name, _, _ in rows}) == len(rows)


SUBSCRIBED = Pen(v5=True).subscribes("b", ("t/#", 1), properties=b"\x0b\1")
RETAINED = Step("a", publish("t/a", b"1", qos=1, v5=True, retain=True))


def replies(*, qos=1, retain=0, payload=b"1", identifier=1) -> list[Reply]:
    return [Reply("PUBLISH", (b"t/a", payload, qos, retain, 0, ((0x0B, identifier),)))]


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        replies(qos=0),
        replies(retain=1),
        replies(payload=b"2"),
        replies(identifier=2),
        replies() + replies(),
        [*replies(), CLOSED],
        [*replies(), Reply("PUBACK", (1, 0, ()))],
    ],
    ids=["lost", "QoS", "retain", "payload", "identifier", "twice", "closed", "an answer more"],
)
def test_no_explanation_takes_a_bug_for_a_difference(wrong):
    """Law of the test itself: a message that goes astray at one of the two is found."""
    story = Story()
    pen = Pen(v5=True)
    for step in (pen.hello("a"), pen.hello("b"), SUBSCRIBED):
        said = story.said(step)
        story.before(step, said)
        answer = Reply("SUBACK", (1, (1,), ())) if step is SUBSCRIBED else Reply("CONNACK", (0, 0, ()))
        story.after(step, said, [answer])
    said = story.said(RETAINED)
    story.before(RETAINED, said)
    for ours, theirs in ((wrong, replies()), (replies(), wrong)):
        moment = Moment(RETAINED, said, "b", False, Heard.of(ours), Heard.of(theirs), story)
        assert explain(moment) is None


def test_a_difference_that_nothing_explains_is_reported_with_its_script(duel):
    """The listener is given another packet than mosquitto: seed, step and both replies are told."""
    pen = Pen(v5=True)
    script = Script("an example", ("a",), (pen.hello("a"), pen.subscribes("a", ("t", 1)), pen.says("a", "t", b"1")))
    play = duel.players[0].act
    duel.players[0].act = lambda step: play(step if step.opens or step.data[0] != 0x30 else pen.says("a", "t", b"2"))
    with pytest.raises(UnexplainedError, match=r"script an example, step 2, a:(?s:.*)b'2'(?s:.*)b'1'"):
        duel.play(script)


def test_the_witness_reads_replies_by_itself():
    """Law of the test itself: vectors by hand, a packet id replaced by the message that it stands for."""
    stream = Stream(True, {})
    stream.data += b"\x34\x0c\0\1t\0\7\3\x0b\xac\2hi!" + b"\x62\2\0\7" + b"\x40\3\0\5\x10" + b"\xe0\1\x8e"
    assert [stream.reply(*each)[0] for each in stream.packets()] == [
        Reply("PUBLISH", (b"t", b"hi!", 2, 0, 0, ((0x0B, 300),))),
        Reply("PUBREL", (b"hi!", 0, ())),
        Reply("PUBACK", (5, 0x10, ())),
        Reply("DISCONNECT", (0x8E,)),
    ]


def test_the_story_follows_filters_sessions_and_packet_ids():
    """Law of the test itself: what explanations go by."""
    assert matches(b"t/#", b"t")
    assert matches(b"+/+", b"/t")
    assert not matches(b"+/t", b"$x/t")
    assert not matches(b"t/+", b"t")
    story, pen = Story(), Pen(v5=False)
    for step, answer in (
        (pen.hello("a", releases=False), Reply("CONNACK", (0, 0, ()))),
        (pen.subscribes("a", ("t/#", 1), ("u", 2)), Reply("SUBACK", (1, (1, 0x80), ()))),
        (pen.says("a", "t", b"1", qos=2, mid=9), Reply("PUBREC", (9, 0, ()))),
    ):
        said = story.said(step)
        story.before(step, said)
        story.after(step, said, [answer])
    client = story.client("a")
    assert client.plain(b"t/a") == [(1, 0)]
    assert client.plain(b"u") == []
    assert story.withheld == {b"1": "unreleased"}
    hello = Step("a", connect("a"), opens=True)
    story.before(hello, story.said(hello))
    assert client.unreleased == {}
    assert text("a") in hello.data
