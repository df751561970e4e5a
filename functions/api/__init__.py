"""Python collects garbage after every few thousand new objects; nearly all objects of a cold start survive."""

import gc

gc.disable()  # turned on again at the end of the handler module; shortens a start by a fifteenth
