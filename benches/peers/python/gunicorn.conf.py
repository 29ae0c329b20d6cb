"""gunicorn with as many workers as its documentation recommends, and threads, because only these keep connections open."""

import os
import signal
import sys
import threading

bind = "127.0.0.1:" + os.environ["PORT"]
workers = 2 * len(os.sched_getaffinity(0)) + 1
threads = 4
loglevel = "warning"


def on_starting(server):
    """Ends the server when its standard input ends."""

    def wait():
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
