"""The learning side: shards in, checkpoints and metrics out."""

import os

# Before torch is loaded. Its threads wait for each other several thousand times a second where tensors are small, as in a probe;
# OpenMP lets them spin meanwhile, and where something else has the cores they spin instead of what they wait for: the probe of
# a set took 20 times as long on a busy machine. Asleep they lose some microseconds.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
