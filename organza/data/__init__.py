r"""Data: a finite sample :math:`x_1, \dots, x_N` of p_data, and the order in which training looks at it.

A `Data` is one data set in memory, ``x`` with labels ``y`` or without.  `open_data` makes one from a built-in
name, a file, a folder of images or an array.  `Order` says which example stands at which position of the
endless stream, as a pure function of the seed and the position: to resume a stream is to know its position.

Values are the data's own at the border, and floats about 0 inside: images in [-1, 1], see `organza.values`.
"""

from .order import Order
from .source import Data, Spec, added, held_out, names, open_data

__all__ = ["Data", "Order", "Spec", "added", "held_out", "names", "open_data"]
