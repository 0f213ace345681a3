"""One command of fednode; its peak resident memory (VmHWM, MiB) as the last line of stderr. For
scripts/_bench_memory.py: what wait4 says of a child has its parent's memory in it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fednode.node.cli import invoke

if __name__ == "__main__":
    code = invoke(sys.argv[1:], os.environ)
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM:"))
    print(f"peak {int(line.split()[1]) / 1024:.1f}", file=sys.stderr)
    sys.exit(code)
