"""The C library: threads share a session, push, pull, wait, give up, while a server is killed; all that was not taken back counts once.
PINION_CLIENT: another build's client-session against this build's cluster."""
import os
import subprocess
from cluster import BUILD, SLOW, Cluster

JOB = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {name: threads}
spec:
  data: {external: true}
  tables:
    defaults: {optimizer: {name: sgd, lr: 1}, init: zero}
    users: {dim: 4}
    items: {dim: 3}
  model: {name: external}
  checkpoint: {every: 10s}
"""
program = os.environ.get("PINION_CLIENT", os.path.join(BUILD, "client-session"))
slow = max(SLOW, 6 if "PINION_CLIENT" in os.environ else 1)
with Cluster(ps=2, workers=1, serving=0) as c:
    for kills in (0, 1):
        id = c.submit(JOB)
        p = subprocess.Popen([program, c.info["coordinator"]["zmq"], id, "4", str(6000 // slow)], env=dict(os.environ, ASAN_OPTIONS="detect_leaks=1"))
        for _ in range(kills):
            c.wait_steps(id, 1000)
            c.kill("ps-1")
            assert p.poll() is None  # killed meanwhile
        assert p.wait(timeout=200) == 0, p.returncode
        assert c.wait(id, 30)["state"] == "SUCCEEDED"
