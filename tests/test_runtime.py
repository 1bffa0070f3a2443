"""Settings of the process: a server must not fill memory with kernels."""

import os
import subprocess
import sys

import pytest
import torch

from test_house import PACKAGE

GROWN = """
import sys
from madtp.runtime import few_kernels
if sys.argv[1] == "few":
    few_kernels(64)
import torch

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

torch.set_num_threads(1)
weight, bias = torch.zeros(131, 67), torch.zeros(131)

def product(rows):
    torch.ops.mkldnn._linear_pointwise(torch.zeros(rows, 67), weight, bias, "none", [], "")

with torch.inference_mode():
    product(3)
    before = resident()
    for rows in range(7, 607):
        product(rows)
print(resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
def test_a_kernel_a_shape_is_not_kept_for_ever() -> None:
    names = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    environment = {key: value for key, value in os.environ.items() if key not in names}
    environment["PYTHONPATH"] = str(PACKAGE.parent)
    grown = {}
    for how in ("few", "all"):
        command = [sys.executable, "-c", GROWN, how]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        grown[how] = int(done.stdout) / 2**20
    assert grown["few"] < 0.6 * grown["all"], grown
