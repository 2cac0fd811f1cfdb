"""Records as Parquet. The only module that knows `pyarrow`, which is an extra and is loaded only when it is asked for.

Invariants:
- At most one row group is held in memory, bounded in rows and in bytes.
- Times are microseconds in UTC; payloads are text, and `payload_as` says how to read it, as in the other formats.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from gateway.cli.log_export import COLUMNS
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from gateway.cli.log_export import Row

_GROUP_ROWS = 20_000
_GROUP_BYTES = 8 * 1024 * 1024
_ROW_BYTES = 100
"""Beside topic and payload, roughly."""


class Parquet:
    """Row groups, one after the other; the file's footer comes last."""

    def __init__(self, out: IO[bytes]) -> None:
        """Begin a file.

        Raises:
            ConfigError: if `pyarrow` is not installed.
        """
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError:
            raise ConfigError(["--format parquet needs pyarrow: pip install 'edge-event-gateway[parquet]'"]) from None
        word = pa.dictionary(pa.int32(), pa.string())
        types = {
            "seq": pa.int64(),
            "kind": word,
            "topic": word,
            "time": pa.timestamp("us", tz="UTC"),
            "qos": pa.int8(),
            "payload_as": word,
            **dict.fromkeys(("clock_synced", "retained", "duplicate", "derived", "replayed"), pa.bool_()),
        }
        self._schema = pa.schema([(name, types.get(name, pa.string())) for name in COLUMNS])
        self._table = pa.Table.from_arrays
        self._array = pa.array
        self._writer = pq.ParquetWriter(out, self._schema, compression="zstd")
        self._rows: list[Row] = []
        self._bytes = 0

    def write(self, rows: list[Row]) -> None:
        """Some rows more."""
        for row in rows:
            self._rows.append(row)
            self._bytes += len(row.topic) + len(row.payload) + _ROW_BYTES
            if len(self._rows) >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
                self._flush()

    def finish(self) -> None:
        """The last rows, and the footer without which there is no file."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if not self._rows:
            return
        columns = [[getattr(row, name) for row in self._rows] for name in COLUMNS]
        arrays = [self._array(column) for column in columns]
        self._writer.write_table(self._table(arrays, names=list(COLUMNS)).cast(self._schema))
        self._rows.clear()
        self._bytes = 0
