"""Many processes on one store, killed at random. Run by test_store_chaos.py, with a seed; prints what was done as JSON.

python store_chaos.py STORE SEED PROCESSES KILLS SECONDS
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from bentotool.errors import BentotoolError
from bentotool.interfaces import SourceFile
from bentotool.models.intake import take_files
from bentotool.models.manifest import ModelDetails
from bentotool.models.store import ModelStore
from bentotool.oci.collect import collect
from bentotool.oci.layout import Layout

GRACE_S = 1.0
SOURCES = 16
DETAILS = ModelDetails("test", "raw", "data", "w.bin", {"inputs": [], "outputs": []}, (), {}, {})


def act(store: ModelStore, rng: random.Random, sources: Path) -> None:
    action = rng.choice(["import"] * 4 + ["tag", "view"] + ["delete"] * 4 + ["collect"] * 2)
    name = f"m{rng.randrange(6)}"
    if action == "import":
        files = [SourceFile(sources / str(n), f"w{n}.bin") for n in rng.sample(range(SOURCES), 2)]
        taken = take_files(store.layout, name, files, lambda amount: None)
        store.add(name, None, taken.files, DETAILS, layers=taken.layers)
    elif action == "tag":
        store.tag(name, f"t{rng.randrange(3)}")
    elif action == "delete":
        for ref in store.list(name):  # all of them, so that content is often unnamed and comes back later
            store.refs.delete("models", ref.name, ref.tag)
    elif action == "view":
        store.materialise(store.get(name))
    else:
        collect(store.layout, grace=GRACE_S)


def work(root: Path, seed: int, done: int) -> None:
    rng = random.Random(seed)
    store = ModelStore(Layout(root / "store"))
    while True:
        time.sleep(rng.random() * 0.2)
        # To lose a race is an answer; to leave a broken store is not, and that is what is checked in the end.
        with contextlib.suppress(BentotoolError):
            act(store, rng, root / "sources")
            os.write(done, b".")


def main(root: Path, seed: int, processes: int, kills: int, seconds: float) -> None:
    rng = random.Random(seed)
    (root / "sources").mkdir(parents=True)
    for number in range(SOURCES):
        (root / "sources" / str(number)).write_bytes(rng.randbytes(20_000 + number))
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)

    def start() -> int:
        seeded = rng.randrange(1 << 30)
        pid = os.fork()
        if pid == 0:
            try:
                work(root, seeded, write)
            finally:
                os._exit(1)
        return pid

    running = [start() for _ in range(processes)]
    died = 0
    for _ in range(kills):
        time.sleep(seconds / kills)
        victim = running.pop(rng.randrange(len(running)))
        os.kill(victim, signal.SIGKILL)
        died += os.waitpid(victim, 0)[1] != signal.SIGKILL
        running.append(start())
    for pid in running:
        os.kill(pid, signal.SIGKILL)
        died += os.waitpid(pid, 0)[1] != signal.SIGKILL
    finished = len(os.read(read, 1 << 20))
    print(json.dumps({"actions": finished, "died": died}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
