"""What a quantizer spends on weights, what errors it makes, and how far that is from a bound or another curve."""

from rdlib.measure.errors import Signal, distances, output_error, sqnr_db, squared_errors
from rdlib.measure.gaps import average_gap, gap, rate_at
from rdlib.measure.points import (
    Curve,
    Point,
    curve,
    measure,
    measure_code,
    measure_values,
    payload_entropy,
    save,
    table,
)
