"""Listen on a port, start a child that burns the processor, tell the port, and end when standard input does."""

import socket
import subprocess
import sys

BURN = "while True: pass"

listener = socket.create_server(("127.0.0.1", 0))
child = subprocess.Popen([sys.executable, "-c", BURN, "--password=hunter2"])
print(listener.getsockname()[1], child.pid, flush=True)
sys.stdin.read()
child.kill()
child.wait()
