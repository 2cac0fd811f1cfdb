"""`gateway.act.notify_wording` and `notify_mail`: whatever rules say stays text, on the lines where it belongs."""

from __future__ import annotations

import email
import email.header
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.act import notify_ntfy, notify_webhook
from gateway.act.notify_grouping import Message, Parcel, shortened
from gateway.act.notify_mail import BODY_BYTES, mail
from gateway.act.notify_wording import LONGEST_TITLE, body, one_line, plain_text, title
from gateway.config.settings import EmailSettings, NtfySettings

OF_MAY_NS = 1_777_900_029_000_000_000
SETTINGS = EmailSettings(
    name="oncall",
    host="mail.example.org",
    port=587,
    sender="greenhouse@example.org",
    recipients=("a@example.org", "b@example.org"),
    subject="greenhouse-01: {text}",
)
TOPIC = NtfySettings(name="phone", server="https://ntfy.example/", topic="greenhouse", priority=4, title="g: {rule}")
WARM = Message("warm/shed/7/0", "warm", "shed", "shed is at 31.5 °C", "temperature > 30 (31.5)")
COLD = Message("cold/shed/8/0", "cold", "shed", "shed is cold", "")
EVIL = "warm\r\nBcc: all@example.org\r\n\r\n<script>\n.\r\n\x1b[31m\u202e\ud800 \u2028X: y\x00"

texts = st.text(st.characters(), max_size=300)  # surrogates and controls included
messages = st.builds(Message, texts, texts, texts, texts, texts)
parcels = st.builds(
    Parcel, st.lists(messages, min_size=1, max_size=5).map(tuple), st.integers(min_value=0, max_value=10**9)
)


def parsed(data: bytes):
    return email.message_from_bytes(data, policy=email.policy.default)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\r\nb", "a b"),
        ("a\tb\x00c", "a b c"),
        ("  a   b ", "a b"),
        ("", ""),
        ("a\u2028b\x85c", "a b c"),
        ("ä°", "ä°"),
    ],
)
def test_a_line_is_one_line(text, line):
    """Line ends of every kind are spaces in a title."""
    assert one_line(text) == line


def test_a_title_fills_a_template_once():
    """Braces in a text are the text's own, and names that the template does not have stay away."""
    braces = WARM._replace(text="{rule} and {count}")
    assert title("[g] {rule}/{key}: {text}", Parcel((braces,))) == "[g] warm/shed: {rule} and {count}"


def test_a_title_of_several_says_how_many_and_names_what_they_share():
    """A phone shows one line: it says that there is more."""
    assert title("{count}: {rule} {key} {text}", Parcel((WARM, COLD), 3)) == (
        "5: 2 rules shed 5 messages: shed is at 31.5 °C"
    )
    assert title("{rule} {key}", Parcel((WARM, WARM._replace(key="attic")))) == "warm"


def test_a_body_of_one_is_its_text_and_of_several_a_list():
    """What is read first is what happened; then why."""
    assert body(Parcel((WARM,)), 1_000) == "shed is at 31.5 °C"
    assert body(Parcel((WARM,)), 1_000, with_reasons=True) == (
        "shed is at 31.5 °C\nbecause temperature > 30 (31.5)\nrule warm (shed)"
    )
    assert body(Parcel((WARM, COLD), 2), 1_000, with_reasons=True) == (
        "4 messages\n\n- shed is at 31.5 °C\n  because temperature > 30 (31.5)\n  rule warm (shed)\n"
        "- shed is cold\n  rule cold (shed)\n\nand 2 more: see the gateway's log"
    )


def test_what_does_not_fit_a_body_is_counted_in_its_last_line():
    """A hundred alarms are one readable message, and its numbers add up."""
    many = Parcel(tuple(WARM._replace(text=f"{number} {'x' * 90}") for number in range(100)), 7)
    lines = body(many, 1_000).split("\n")
    listed = [line for line in lines if line.startswith("- ")]
    assert lines[0] == "107 messages"
    assert 5 <= len(listed) < 15
    assert lines[-1] == f"and {107 - len(listed)} more: see the gateway's log"


@given(parcels, st.integers(min_value=256, max_value=3_000), st.booleans())
def test_a_body_keeps_its_size_and_holds_nothing_but_lines(parcel, most_bytes, with_reasons):
    """Whatever was said: no more bytes than asked for, no control character, no half a character."""
    text = body(parcel, most_bytes, with_reasons=with_reasons)
    assert 0 < len(text.encode()) <= most_bytes
    assert text.replace("\n", "").isprintable()


@given(parcels)
def test_a_title_is_one_short_line(parcel):
    """Whatever was said."""
    line = title("{text} {rule} {key} {count}", parcel)
    assert len(line) <= LONGEST_TITLE
    assert line.isprintable()


def test_no_text_of_a_rule_becomes_a_header_or_ends_the_mail():
    """A payload that holds line ends, dots and markup arrives as text."""
    evil = Message(EVIL, EVIL, EVIL, EVIL, EVIL)
    for parcel in (Parcel((evil,)), Parcel((evil, evil), 2)):
        data = mail(SETTINGS, parcel, OF_MAY_NS)
        got = parsed(data)
        assert set(got.keys()) == {
            "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted",
            "Content-Type", "Content-Transfer-Encoding", "MIME-Version",
        }  # fmt: skip
        assert got["To"] == "a@example.org, b@example.org"
        assert got["Subject"].isprintable()
        assert (got.get_content_type(), got.is_multipart()) == ("text/plain", False)
        assert b"\r\n.\r\n" not in data
        assert b"<script>" not in data.partition(b"\r\n\r\n")[2]
        assert "<script>" in got.get_content()


@pytest.mark.parametrize("word", ["=?utf-8?q?a=0D=0ABcc:_b@example.org?=", "=?utf-8?b?YQ0KQmNjOiBiQGV4YW1wbGUub3Jn?="])
def test_a_text_that_looks_encoded_is_not_decoded_into_a_header(word):
    """Python's newer mail policies decode what they are given, and wrote a `Bcc` of their own from it."""
    data = mail(SETTINGS, Parcel((WARM._replace(text=word),)), None)
    assert b"Bcc" not in data.partition(b"\r\n\r\n")[0]
    got = email.message_from_bytes(data, policy=email.policy.compat32)
    (decoded,) = email.header.decode_header(got["Subject"])
    assert decoded[0].decode() == f"greenhouse-01: {word}"


@given(parcels)
def test_any_parcel_is_a_mail_of_plain_ascii_lines(parcel):
    """Every server takes it: CR LF alone ends lines, none is too long, and what is read is what was said."""
    data = mail(SETTINGS, parcel, None)
    assert data.isascii()
    lines = data.split(b"\r\n")
    assert not any(b"\n" in line or b"\r" in line or len(line) > 998 for line in lines)
    got = parsed(data)
    assert got["Date"] is None
    # Line ends within text/plain are CR LF; the last one is the encoder's.
    assert got.get_content().replace("\r\n", "\n").rstrip("\n") == body(parcel, BODY_BYTES, with_reasons=True).rstrip(
        "\n"
    )
    assert got["Subject"].strip() == title(SETTINGS.subject, parcel)


def test_the_same_parcel_is_the_same_mail():
    """A second try after a lost answer can be recognised: the Message-ID is the same; of anything else it differs."""
    one, again = (mail(SETTINGS, Parcel((WARM,)), OF_MAY_NS) for _ in range(2))
    assert one == again
    got = parsed(one)
    assert got["Date"] == "Mon, 04 May 2026 13:07:09 +0000"
    assert got["Auto-Submitted"] == "auto-generated"
    assert got["Message-ID"].endswith("@example.org>")
    assert parsed(mail(SETTINGS, Parcel((COLD,)), OF_MAY_NS))["Message-ID"] != got["Message-ID"]


def test_what_is_posted_names_each_decision():
    """A program can drop what it has seen: each message has the id of its decision, alone or among others."""
    alone = {"id": "warm/shed/7/0", "rule": "warm", "key": "shed", "to": "hook", "text": "shed is at 31.5 °C"}
    alone["because"] = "temperature > 30 (31.5)"
    assert notify_webhook.payload("hook", Parcel((WARM,))) == alone
    words = "3 messages\n\n- shed is at 31.5 °C\n\nand 2 more: see the gateway's log"
    assert notify_webhook.payload("hook", Parcel((WARM,), 2)) == {**alone, "text": words, "more": 2}
    both = notify_webhook.payload("hook", Parcel((WARM, COLD)))
    assert [each["id"] for each in both.pop("messages")] == ["warm/shed/7/0", "cold/shed/8/0"]
    assert both == {"to": "hook", "text": "2 messages\n\n- shed is at 31.5 °C\n- shed is cold"}


def test_what_is_published_to_a_phone_is_short_plain_text():
    """A server makes an attachment of what is longer than its limit, and nobody reads that."""
    assert notify_ntfy.payload(TOPIC, Parcel((WARM,))) == {
        "topic": "greenhouse",
        "title": "g: warm",
        "message": "shed is at 31.5 °C",
        "priority": 4,
    }
    long = notify_ntfy.payload(TOPIC, Parcel((WARM._replace(text="°" * 2_000),) * 100))
    assert len(long["message"].encode()) <= 4_096


def test_a_text_of_nothing_is_still_told():
    """That a rule spoke is news, even without words."""
    assert body(Parcel((WARM._replace(text="\x00\n"),)), 256) == "(no text)"
    assert plain_text("\n\na \r\nb\x07\n") == "a\nb"
    assert shortened("abc", 3) == "abc"
    assert shortened("abcd", 3) == "ab…"
