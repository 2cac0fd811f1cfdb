"""What is wrong with a configuration although each of its values is right: two of them do not go together.

Addresses are compared as words. Two names of one machine are not found out; nothing here asks the network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.config.values import cut_path

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.config.document import Mark, Problems
    from gateway.config.values import Address, Context


def note_conflicts(context: Context, problems: Problems) -> None:
    """Note everything that two parts of a configuration claim for themselves."""
    _ports(context, problems)
    _own_clients(context, problems)
    _client_ids(context, problems)
    _files(context, problems)


def _ports(context: Context, problems: Problems) -> None:
    for index, (mark, key, address) in enumerate(context.listeners):
        for _, other_key, other in context.listeners[:index]:
            if address.reaches(other) or other.reaches(address):
                problems.add(mark, f"`{key}` and `{other_key}` are both on port {address.port}")


def _own_clients(context: Context, problems: Problems) -> None:
    brokers = [session.address for session in context.sessions if not session.is_sink]
    listeners = [address for _, key, address in context.listeners if key == "mqtt.listen"]
    for session in context.sessions:
        is_own = any(session.address.reaches(listener) for listener in listeners)
        if is_own and not session.is_sink:
            problems.add(session.mark, "this is the gateway's own listener: it would be its own client")
        elif is_own or (session.is_sink and any(_is_same(session.address, broker) for broker in brokers)):
            context.warnings.add(
                session.mark,
                "events come from this broker as well: one whose new topic matches `ingest.topics` goes round for ever",
            )


def _client_ids(context: Context, problems: Problems) -> None:
    for index, session in enumerate(context.sessions):
        for other in context.sessions[:index]:
            if session.client_id == other.client_id and _is_same(session.address, other.address):
                problems.add(
                    session.mark,
                    f"the same client id is in use for the same broker in line {other.mark.line}: "
                    "each connection would end the other",
                )


def _files(context: Context, problems: Problems) -> None:
    first: dict[Path, Mark] = {}
    for mark, path in context.files:
        if path in first:
            problems.add(mark, f"{cut_path(path)} is written by another sink as well, in line {first[path].line}")
        first.setdefault(path, mark)


def _is_same(address: Address, other: Address) -> bool:
    return (address.host, address.port) == (other.host, other.port)
