"""Imported first: until `run_command` handles it, Ctrl-C ends the program without a traceback.

Imports alone take a second, in which people notice that they have forgotten an option.
"""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as in the background
    signal.signal(signal.SIGINT, signal.SIG_DFL)
