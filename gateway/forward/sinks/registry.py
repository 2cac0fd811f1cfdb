"""Which settings make which sink. Modules are imported only when a configuration asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.config.settings import FileSinkSettings, HttpSinkSettings, InfluxSinkSettings, MqttSinkSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.config.settings import SinkSettings, TopicSettings
    from gateway.forward.sinks.port import Sink


def build(settings: SinkSettings, gateway_id: str, topics: Sequence[TopicSettings]) -> Sink:
    """The sink for one entry of `forward`. Opens nothing yet.

    Args:
        settings: the entry.
        gateway_id: for names that a target shows.
        topics: `ingest.topics`, whose captures name tags and fill templates.

    Raises:
        TypeError: for settings of a kind that no sink serves; a bug, since the configuration knows its kinds.
    """
    match settings:
        case HttpSinkSettings():
            from gateway.forward.sinks.http import HttpSink  # noqa: PLC0415 - imported only when configured

            return HttpSink(settings, gateway_id)
        case MqttSinkSettings():
            from gateway.forward.sinks.mqtt import MqttSink  # noqa: PLC0415 - imported only when configured

            return MqttSink(settings, gateway_id, topics)
        case InfluxSinkSettings():
            from gateway.forward.sinks.influxdb import InfluxSink  # noqa: PLC0415 - imported only when configured

            return InfluxSink(settings, gateway_id, topics)
        case FileSinkSettings():
            from gateway.forward.sinks.file import FileSink  # noqa: PLC0415 - imported only when configured

            return FileSink(settings)
        case _:
            raise TypeError(f"no sink for {type(settings).__name__}")
