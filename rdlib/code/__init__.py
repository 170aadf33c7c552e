"""A code is a file: streams, what each of them costs, and its bytes."""

from rdlib.code.ans import Ans, huffman_bits, rice_bits
from rdlib.code.code import PAYLOAD, Code, Stream, frequency_table
from rdlib.code.decoder import Decoder, MalformedCode
from rdlib.code.fixed import Fixed
from rdlib.code.floats import FLOATS, Float
from rdlib.code.format import Format
