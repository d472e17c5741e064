"""`router-ml` with a witness: a thread notes the number of tasks and threads, once a second, in a file."""

import asyncio
import gc
import os
import sys
import threading
import time
from pathlib import Path

from router_ml.cli import main


def watch(path):
    with Path(path).open("a", encoding="utf-8") as file:
        while True:
            time.sleep(1.0)
            tasks = sum(isinstance(one, asyncio.Task) and not one.done() for one in gc.get_objects())
            file.write(f"{tasks} {threading.active_count()}\n")
            file.flush()


if __name__ == "__main__":
    threading.Thread(target=watch, args=(os.environ["WITNESS"],), daemon=True).start()
    sys.exit(main())
