"""Reports: one page of HTML that shows what a network does with some inputs, layer by layer, and needs nothing else.

`collect` computes the data of a report, `write` makes a page of them. Both take what the methods take.
"""

from gradtap.report.collecting import collect
from gradtap.report.page import write

__all__ = ["collect", "write"]
