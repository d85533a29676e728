"""The explorer: a page in the browser that shows the maps of a model's layers, on this machine alone.

``gradtap app MODEL FOLDER`` serves it; nothing is sent anywhere.
"""

from gradtap.app.explorer import Explorer
from gradtap.app.interface import interface, serve

__all__ = ["Explorer", "interface", "serve"]
