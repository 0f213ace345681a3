"""What the frozen program runs first (scripts/build-binary)."""

import os
import sys
from multiprocessing import freeze_support

freeze_support()  # a worker of `fednode verify` is this program, started anew

# The bootloader points the loader at the libraries that come with the program. What we start (a browser that prints a
# receipt) must find its own; this process has read the setting already.
before = os.environ.pop("LD_LIBRARY_PATH_ORIG", None)
if before is not None:
    os.environ["LD_LIBRARY_PATH"] = before
elif getattr(sys, "frozen", False):
    os.environ.pop("LD_LIBRARY_PATH", None)

from fednode.node.cli import main  # noqa: E402

main()
