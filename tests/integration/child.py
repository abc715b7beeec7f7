"""What a process does that was forked for one command; it must not import difformer_plugin.

(--user-dir does, and registers only what nobody has imported before.)
"""

import atexit
import contextlib
import importlib
import multiprocessing
import os
import resource
import signal
import sys
import warnings


def call(module, function, argv, out, err, file_limit, environment):
    """Call a command's function with its own streams; how it ends becomes the exit status."""
    for path, stream in ((os.devnull, 0), (out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), stream)
    os.environ.update(environment)
    warnings.simplefilter("ignore")
    if file_limit is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    sys.argv = argv
    multiprocessing.set_start_method("fork", force=True)  # for workers that load data
    try:
        code = getattr(importlib.import_module(module), function)() or 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())  # as Python does
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    sys.exit(code)
