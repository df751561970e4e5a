"""Python looks for garbage each time it has made some thousand objects; nearly all that a start makes stays."""

import gc

gc.disable()  # the handler's last lines turn it on again: without, a start is a fifteenth shorter
