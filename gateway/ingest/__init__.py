"""From what receivers bring to records of the log: decoding, validation, dead letters."""

from gateway.ingest.decode import values_of
from gateway.ingest.pipeline import Ingest

__all__ = ["Ingest", "values_of"]
