"""Make the embedded runtime's wheel and install it, with its dependencies, beside the running interpreter.

``python .ci/install_runtime.py FOLDER``, from the checkout: making the wheel takes the standard library alone, so the
environment stays free of everything that a Bento does not carry.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bentotool.build.wheel import runtime_wheel


def main() -> int:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    version, content = runtime_wheel()
    wheel = folder / f"bentotool_runtime-{version}-py3-none-any.whl"
    wheel.write_bytes(content)
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    # twice: the dependencies where they are missing, and this very wheel although its version is installed already
    for options in ([], ["--force-reinstall", "--no-deps"]):
        subprocess.run([*pip, *options, str(wheel)], check=True)
    return 0


sys.exit(main())
